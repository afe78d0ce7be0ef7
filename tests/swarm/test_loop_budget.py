"""What one peer may take of the loop: it owes for what is no work, and slows down nobody but itself."""

import asyncio
import time

import pytest

from swarm.incoming import MAX_REMEMBERED_PEERS, IncomingStreams
from swarm.streams import LOOP_AT_ONCE_S, LOOP_SHARE, STREAM_S, TURN_S, VAIN_STREAM_S, LoopBudget
from swarm.wire.blocks import PeerId
from tests.resumptions import Resumptions


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_is_owed_is_paid_for_by_the_time_that_passes() -> None:
    clock = Clock()
    budget = LoopBudget(clock)
    budget.charge(0.3)
    clock.now_s = 2.0
    assert budget.owed_s() == pytest.approx(0.3 - 2 * LOOP_SHARE)
    clock.now_s = 100.0
    assert budget.owed_s() == 0.0
    budget.charge(0.1)
    assert budget.owed_s() == pytest.approx(0.1), "nothing is saved up"


def test_a_block_is_charged_with_the_processors_time_and_not_with_the_time_that_passes() -> None:
    budget = LoopBudget(Clock())
    with budget.charged():
        time.sleep(0.05)
    assert budget.owed_s() < 0.03
    with budget.charged(besides_s=1.0):
        pass
    assert 1.0 <= budget.owed_s() < 1.1


async def test_who_owes_little_is_read_at_once_and_who_owes_more_waits_until_it_is_paid_for() -> None:
    budget = LoopBudget()
    budget.charge(LOOP_AT_ONCE_S)
    began_s = time.monotonic()
    await budget.next_turn()
    budget.charge(0.02)
    await budget.next_turn()
    assert time.monotonic() - began_s >= 0.02 / LOOP_SHARE * 0.9


async def test_who_turns_out_to_owe_nothing_waits_no_longer_and_neither_do_those_behind() -> None:
    budget = LoopBudget()
    budget.charge(LOOP_AT_ONCE_S + 60.0)
    waiting = [asyncio.create_task(budget.next_turn()) for _ in range(3)]
    await asyncio.sleep(0)
    budget.forgive(60.0 + LOOP_AT_ONCE_S)
    async with asyncio.timeout(5):
        await budget.next_turn()
        await asyncio.gather(*waiting)


async def test_of_a_hundred_streams_that_wait_for_a_debt_one_looks_at_it_at_a_time() -> None:
    budget, resumptions = LoopBudget(), Resumptions()
    budget.charge(LOOP_AT_ONCE_S + 0.01)
    async with asyncio.timeout(10):
        await asyncio.gather(*(resumptions.watch(budget.next_turn()) for _ in range(100)))
    assert resumptions.number < 150


async def test_others_have_a_turn_after_a_millisecond_of_work_for_one_peer() -> None:
    budget, turns = LoopBudget(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    for _ in range(100):
        budget.charge(TURN_S / 10)
        await budget.next_turn()
    task.cancel()
    assert 5 <= turns <= 15


def test_what_a_peer_owes_waits_for_it_until_it_comes_back_and_all_of_its_streams_pay_together() -> None:
    incoming, peer = IncomingStreams(), PeerId("a")
    with incoming.counted(peer):
        incoming.loop_budget(peer).charge(5.0)
    with incoming.counted(peer):
        assert incoming.loop_budget(peer).owed_s() > 4.0
    assert incoming.loop_budget(PeerId("b")).owed_s() == 0.0


def test_peers_that_owe_nothing_are_forgotten_before_there_are_too_many() -> None:
    incoming = IncomingStreams()
    debtor, guest = PeerId("debtor"), PeerId("guest")
    incoming.loop_budget(debtor).charge(1000.0)
    with incoming.counted(guest):
        mine = incoming.loop_budget(guest)
        for number in range(2 * MAX_REMEMBERED_PEERS):
            incoming.loop_budget(PeerId(f"{number}"))
            assert len(incoming._loop_budgets) <= MAX_REMEMBERED_PEERS
        assert incoming.loop_budget(debtor).owed_s() > 0
        assert incoming.loop_budget(guest) is mine


def test_what_turns_out_to_be_work_is_not_owed_and_saves_nothing_up() -> None:
    budget = LoopBudget(Clock())
    budget.charge(0.2)
    budget.forgive(0.15)
    assert budget.owed_s() == pytest.approx(0.05)
    budget.forgive(1.0)
    budget.charge(0.1)
    assert budget.owed_s() == pytest.approx(0.1)


def test_a_stream_that_belongs_to_a_session_is_charged_with_less_and_to_its_client_alone() -> None:
    client, carrier, stranger = (LoopBudget(Clock()) for _ in range(3))
    for budget in (client, carrier, stranger):
        budget.charge(VAIN_STREAM_S)
    client.welcome(is_own=True)
    carrier.welcome(is_own=False)
    assert client.owed_s() == pytest.approx(STREAM_S)
    assert carrier.owed_s() == 0.0
    assert stranger.owed_s() == VAIN_STREAM_S
