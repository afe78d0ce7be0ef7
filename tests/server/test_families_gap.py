"""A step back to what windows have forgotten is answered with a gap, and the session starts anew."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import torch

from server.executor import Executor
from server.kv_cache import ROLLBACK_TOKENS, KVPool
from server.kv_spill import SpillStore
from server.rooms import Rooms
from server.session_effects import Execute, SessionKey
from swarm.outbox import Window
from swarm.wire.blocks import PeerId, SessionId, Span
from tests.protocol.simulator import Simulator
from tests.protocol.test_hop_session import bound, refusal, sent
from tests.protocol.world import Server
from tests.server.test_executor import FakeRunner

KEY = SessionKey(PeerId("client"), SessionId(bytes(16)))


def test_what_was_forgotten_shows_as_a_gap_at_nothing_and_can_be_fed_again() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    (effect,) = hop.step(2, 5)
    assert isinstance(effect, Execute)
    error = refusal(hop.session.forgotten())
    assert (error.code, error.position, hop.session.position) == ("gap", 0, 0)
    assert (hop.session.log.end, hop.session.credit) == (0, 0)
    ack = hop.bind(epoch=2, commit=2, at=(0, 2))
    assert ack.position == 0
    hop.run(hop.state(0, 1, 2))
    assert sent(hop.run(hop.step(2, 5))) == [(2, [10])]


def test_what_waits_behind_it_is_refused_with_it() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    hop.step(2, 5)
    hop.step(3, 6, attempt=1)
    error = refusal(hop.session.forgotten())
    assert (error.code, error.attempt, hop.session.num_waiting) == ("gap", 1, 0)


def test_a_step_of_an_older_epoch_that_finds_nothing_costs_the_new_one_nothing() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    hop.step(2, 5)
    hop.bind(epoch=2, commit=2, at=(0, 2))
    assert hop.session.forgotten() == []
    assert hop.session.position == 2


def test_a_cache_that_is_lost_under_a_step_of_an_older_epoch_is_lost_for_the_new_one_too() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    hop.step(2, 5)
    hop.bind(epoch=2, commit=2, at=(0, 2))
    assert hop.session.forgotten(is_lost=True) == []
    assert (hop.session.position, hop.session.log.end) == (0, 0)
    assert refusal(hop.step(2, 6)).code == "gap"


def test_steps_of_a_new_epoch_that_wait_on_a_lost_cache_are_refused() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    hop.step(2, 5)
    hop.bind(epoch=2, commit=2, at=(0, 2))
    assert hop.step(2, 6) == []
    error = refusal(hop.session.forgotten(is_lost=True))
    assert (error.code, error.epoch, hop.session.num_waiting) == ("gap", 2, 0)


def test_whatever_a_client_has_in_flight_can_be_taken_back() -> None:
    assert Window().tokens <= ROLLBACK_TOKENS


class ForgetfulServers(Simulator):
    """Chance, and servers on which a step may begin at most REACH tokens before the newest one, or at 0."""

    REACH = 2

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.lowest: Counter[int] = Counter()

    def _compute(self, server: Server) -> None:
        firsts = {id(session): index for index, (session, _) in reversed(list(enumerate(server.running)))}
        index = self.random.choice(list(firsts.values()))
        session, work = server.running[index]
        if not 0 < work.position < self.lowest[id(session)]:
            newest = max(self.lowest[id(session)], work.position - self.REACH)
            self.lowest[id(session)] = newest if work.position else 0
            server.finish(index)
            return
        del server.running[index]
        if server.table.get(session.key) is session:
            self.counts["gone"] += 1
            self.counts["drop_cache"] += 1  # the books know that those are computed again
            server.carry_out(session, session.forgotten())


def run_forgetful(first: int, last: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for seed in range(first, last):
        outcome = ForgetfulServers(seed).run()
        assert not outcome.diverged, (seed, outcome.diverged)
        assert not outcome.stuck, (seed, outcome.stuck)
        total.update(outcome.counts)
    return total


def test_no_schedule_of_faults_diverges_or_gets_stuck_when_servers_forget() -> None:
    assert run_forgetful(0, 300)["gone"] > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_thousand_schedules_end_well_when_servers_forget() -> None:
    run_forgetful(300, 8_000)


async def test_a_spilled_session_that_is_longer_than_the_pool_gets_the_pages_that_its_windows_take(
    tmp_path: Path,
) -> None:
    span, store = Span(0, 2), SpillStore(1 << 20, tmp_path)
    pool = KVPool(20 * 16 * 2, windows={0: 16, 1: 16}, rollback_tokens=30, spill_to=store)
    async with Executor(FakeRunner(), pool) as executor:
        rooms = Rooms(pool, executor)
        room = rooms.open(KEY, span)
        cache = rooms.cache(KEY)
        for position in range(0, 1000, 50):
            assert room(position + 50) >= position + 50
            pool.begin_write(cache, position, position + 50)
            for layer in range(2):
                cache.write(layer, position, torch.zeros(1, 50, 2), torch.zeros(1, 50, 2))
            cache.used = position + 50
        assert await rooms.put_aside(KEY, lambda: True)
        assert room(1010) >= 1010
        async with asyncio.timeout(5):
            assert await rooms.wake(KEY)
        assert pool.reserved(cache) >= 1000
