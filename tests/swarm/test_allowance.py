"""Bytes that peers may make us hold: each bounded, all bounded, nobody starved by another."""

import asyncio

import pytest
import torch

from swarm.allowance import Allowances, unlimited
from swarm.outgoing import Outgoing
from swarm.wire.blocks import PeerId
from swarm.wire.messages import Ping
from tests.server.page_servers import EVERYTHING, stream_pair

ALICE, BOB, EVE = PeerId("1alice"), PeerId("1bob"), PeerId("1eve")
PING = Ping(nonce=0)


def test_a_peer_is_bounded_over_all_of_its_holders() -> None:
    all_peers = Allowances(per_peer=100, in_all=1000)
    first, second, other = all_peers.open(ALICE), all_peers.open(ALICE), all_peers.open(BOB)
    first.note(60)
    assert not second.is_exhausted
    second.note(40)
    assert first.is_exhausted
    assert second.is_exhausted
    assert not other.is_exhausted


def test_a_holder_that_has_nothing_yet_gets_something_until_its_peer_holds_twice_as_much() -> None:
    all_peers = Allowances(per_peer=100, in_all=1000)
    first, second = all_peers.open(ALICE), all_peers.open(ALICE)
    first.note(199)
    assert first.is_exhausted
    assert not second.is_exhausted
    second.note(1)
    assert second.is_exhausted
    assert all_peers.open(ALICE).is_exhausted


def test_what_is_given_back_may_be_held_again() -> None:
    all_peers = Allowances(per_peer=100, in_all=1000)
    held = all_peers.open(ALICE)
    held.note(150)
    held.note(30)
    assert not held.is_exhausted
    held.note(0)
    assert all_peers.held == 0


def test_when_all_is_held_those_with_more_than_their_share_wait_and_others_do_not() -> None:
    all_peers = Allowances(per_peer=100, in_all=120)
    eve, bob = all_peers.open(EVE), all_peers.open(BOB)
    eve.note(95)
    bob.note(30)
    assert eve.is_exhausted
    assert not bob.is_exhausted
    assert not all_peers.open(ALICE).is_exhausted


def test_whoever_holds_nothing_may_always_hold_one_piece() -> None:
    all_peers = Allowances(per_peer=10, in_all=10)
    all_peers.open(EVE).note(10**9)
    assert not all_peers.open(ALICE).is_exhausted


def test_our_own_bytes_have_no_limit() -> None:
    own = unlimited()
    own.note(2**60)
    assert not own.is_exhausted


async def test_who_waits_for_a_change_is_woken_by_any_holder() -> None:
    all_peers = Allowances(per_peer=10, in_all=10)
    waiting = asyncio.create_task(all_peers.open(ALICE).wait_for_change())
    await asyncio.sleep(0)
    assert not waiting.done()
    all_peers.open(ALICE).note(0)
    async with asyncio.timeout(5):
        await waiting


class TestQueuesOfOnePeer:
    """Two queues on behalf of one client, towards successors that take nothing."""

    @pytest.fixture(autouse=True)
    def _queues(self) -> None:
        self.all_peers = Allowances(per_peer=1, in_all=100)
        broken: list[int] = []
        self.first, self.second = (
            Outgoing(broken.append, self.all_peers.open(peer)) for peer in (ALICE, ALICE)
        )
        self.other = Outgoing(broken.append, self.all_peers.open(BOB))
        for queue in (self.first, self.second, self.other):
            queue.begin(0)

    def fill(self, queue: Outgoing) -> None:
        assert queue.send(PING, (torch.zeros(4),))

    async def test_what_one_holds_the_other_may_not_and_another_clients_may(self) -> None:
        self.fill(self.first)
        assert not self.second.send(PING)
        assert self.other.send(PING)

    async def test_a_new_epoch_gives_back_what_was_queued(self) -> None:
        self.fill(self.first)
        self.first.begin(1)
        assert self.second.send(PING)

    async def test_room_comes_when_the_successor_takes_what_waits(self) -> None:
        self.fill(self.first)
        waiting = asyncio.create_task(self.second.wait_for_room())
        pumping = asyncio.create_task(self.first.pump_forever())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        ours, theirs = await stream_pair(EVERYTHING, EVERYTHING)
        assert self.first.attach(ours, 0)
        async with asyncio.timeout(5):
            await waiting
        pumping.cancel()
        ours.close()
        theirs.close()

    async def test_who_waits_for_room_stops_when_the_queue_is_closed(self) -> None:
        self.fill(self.first)
        waiting = asyncio.create_task(self.second.wait_for_room())
        await asyncio.sleep(0)
        self.second.close()
        async with asyncio.timeout(5):
            await waiting
