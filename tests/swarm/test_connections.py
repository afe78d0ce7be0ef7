"""What a client makes of a server's heartbeats."""

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

from swarm.connections import STILL_BEATS, Connection
from swarm.errors import PeerUnreachable
from swarm.streams import FrameStream, LoopBudget
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.messages import Close, Heartbeat, Message, SessionProgress

PEER = PeerId("a server")
OURS, OTHERS = SessionId(b"o" * 16), SessionId(b"x" * 16)


class FakeStream:
    """A control stream on which the server says `messages` and is gone."""

    remote_id = PEER

    def __init__(self, messages: Iterable[Message]) -> None:
        self.loop_budget = LoopBudget()
        self._messages = iter(messages)

    async def read(self) -> Any:
        await asyncio.sleep(0)
        for message in self._messages:
            return SimpleNamespace(message=message)
        raise PeerUnreachable("all is said", PEER)

    def write_nowait(self, message: Message) -> bool:
        return True

    def close(self) -> None:
        """Nothing is to be closed."""


class Told:
    """A session that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[SessionProgress] = []

    def on_progress(self, peer_id: PeerId, progress: SessionProgress) -> None:
        assert peer_id == PEER
        self.told.append(progress)

    def on_message(self, peer_id: PeerId, message: Message) -> None:
        raise AssertionError(message)

    def on_lost(self, peer_id: PeerId, reason: str) -> None:
        raise AssertionError(reason)

    def on_draining(self, peer_id: PeerId) -> None:
        raise AssertionError("nobody drains")


async def heard(*beats: Heartbeat) -> tuple[Told, str]:
    """What a session is told while the server beats like this, and why the connection ended."""
    connection, told = Connection(cast(FrameStream, FakeStream(beats)), lambda peer, record: None), Told()
    connection.send(OURS, told, Close(session=OURS))
    return told, await connection.serve()


def beats(progress: Iterable[int], queue_depth: int) -> list[Heartbeat]:
    return [Heartbeat(progress=number, queue_depth=queue_depth) for number in progress]


async def test_a_server_whose_computation_stands_still_over_waiting_work_is_lost() -> None:
    _, reason = await heard(*beats([7] * (STILL_BEATS + 1), queue_depth=1))
    assert reason.endswith("stands still")


async def test_a_server_that_computes_slowly_or_has_nothing_to_do_is_not_lost() -> None:
    moving = [number // (STILL_BEATS - 1) for number in range(5 * STILL_BEATS)]
    for told in (beats(moving, queue_depth=1), beats([7] * 5 * STILL_BEATS, queue_depth=0)):
        assert (await heard(*told))[1] == "all is said"


async def test_a_session_hears_how_far_it_is_and_not_how_far_others_are() -> None:
    def said(session: SessionId, num_in_hand: int) -> Heartbeat:
        return Heartbeat(sessions=(SessionProgress(session, 1, 0, 5, 9, num_in_hand),))

    told, _ = await heard(said(OTHERS, 1), said(OURS, 0), said(OURS, 2))
    assert [progress.num_in_hand for progress in told.told] == [0, 2]
