"""Requests to a node of the DHT are charged to who sends them; who asks for too much is refused a while."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hivemind.p2p import PeerID

from swarm.dht_requests import MOST_WAITING_OF_PEER, RECORD_S, REQUEST_S, MeteredP2P, TooManyRequests
from swarm.streams import LOOP_AT_ONCE_S, LOOP_SHARE, LoopBudget
from swarm.wire.blocks import PeerId

STRANGER, FRIEND = (PeerID(b"\x12\x20" + bytes([number]) * 32) for number in (1, 2))


@dataclass
class Request:
    keys: list[bytes] = field(default_factory=list)


@dataclass
class Context:
    remote_id: PeerID


class FakeP2P:
    """Keeps handlers, to be called by a test."""

    peer_id = "ours"

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    async def add_protobuf_handler(self, name: str, handler: Any, kind: type, *, balanced: bool) -> None:
        self.handlers[name] = handler


class Node:
    """A node whose clock stands still until it is moved."""

    def __init__(self, wait_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.p2p = FakeP2P()
        self.budgets: dict[PeerId, LoopBudget] = {}
        self.metered = MeteredP2P(self.p2p, self._budget_of, wait_s)

    def _budget_of(self, peer_id: PeerId) -> LoopBudget:
        return self.budgets.setdefault(peer_id, LoopBudget(lambda: self.now_s))

    async def ask(self, who: PeerID, num_keys: int = 1) -> str:
        async def answer(request: Request, context: Context) -> str:
            return "answered"

        await self.metered.add_protobuf_handler("store", answer, Request, balanced=False)
        answered: str = await self.p2p.handlers["store"](Request([b""] * num_keys), Context(who))
        return answered

    async def ask_until_refused(self, who: PeerID, num_keys: int = 1) -> int:
        """How often it was answered."""
        for number in range(100_000):
            try:
                await self.ask(who, num_keys)
            except TooManyRequests:
                return number
        raise AssertionError("never refused")


async def test_a_peer_that_floods_the_table_is_refused_and_nobody_else() -> None:
    node = Node()
    num_answered = await node.ask_until_refused(STRANGER)
    assert num_answered == pytest.approx(LOOP_AT_ONCE_S / (REQUEST_S + RECORD_S), abs=2)
    assert await node.ask(FRIEND) == "answered"


async def test_a_request_of_many_records_counts_for_many() -> None:
    node = Node()
    assert await node.ask_until_refused(STRANGER, num_keys=2000) == 1


async def test_who_was_refused_is_answered_again_once_it_is_paid_for() -> None:
    node = Node()
    await node.ask_until_refused(STRANGER)
    for _ in range(50):
        with pytest.raises(TooManyRequests):
            await node.ask(STRANGER)
    node.now_s += 2 * REQUEST_S / LOOP_SHARE
    assert await node.ask(STRANGER) == "answered"


async def test_who_asks_too_fast_waits_for_a_refusal_and_then_for_none() -> None:
    node = Node()
    await node.ask_until_refused(STRANGER)
    node.metered = MeteredP2P(node.p2p, node._budget_of, wait_s=3600.0)
    waiting = [asyncio.create_task(node.ask(STRANGER)) for _ in range(MOST_WAITING_OF_PEER)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    with pytest.raises(TooManyRequests):
        await node.ask(STRANGER)
    assert await node.ask(FRIEND) == "answered"
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert not node.metered._waiting, "nobody is counted who waits no more"


def test_all_else_is_hiveminds_own() -> None:
    assert Node().metered.peer_id == "ours"
