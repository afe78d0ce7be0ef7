"""Answers are shown as often as platforms allow: channels and accounts that refuse what is too much."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.sending.pacer import Pacer, Skipped
from bot.sending.pacing import MOST_FAILURES, NEVER, AccountPace, ChannelPace, Pace, Priority
from bot.words import Limited
from swarm.background import running
from tests.bot.clock import FakeClock

FINAL, NOTICE, FIRST_POST, CONTROL, PREVIEW = Priority
LATENCY_S = 0.1


class Channel:
    """So many requests in so many seconds, as Discord counts: from the first one on."""

    def __init__(self, slots: int = 5, window_s: float = 5.0) -> None:
        self._slots = slots
        self._window_s = window_s
        self._taken_s: deque[float] = deque()

    def take(self, now_s: float) -> float:
        """Seconds until it takes something; 0 if it has taken it."""
        while self._taken_s and self._taken_s[0] <= now_s - self._window_s + 1e-9:
            self._taken_s.popleft()
        if len(self._taken_s) >= self._slots:
            return self._taken_s[0] + self._window_s - now_s
        self._taken_s.append(now_s)
        return 0.0


class Account:
    """A bucket with a leak, as Synapse has it for `rc_message`: what is refused does not count."""

    def __init__(self, burst: float = 10.0, per_s: float = 0.2, level: float = 0.0) -> None:
        self._burst = burst
        self._per_s = per_s
        self._level = level
        self._at_s = 0.0

    def take(self, now_s: float) -> float:
        """Seconds until it takes something; 0 if it has taken it."""
        self._level, self._at_s = max(0.0, self._level - (now_s - self._at_s) * self._per_s), now_s
        above = self._level - (self._burst - 1)
        if above > 1e-9:
            return above / self._per_s
        self._level += 1
        return 0.0


@dataclass
class Platform:
    """Shows what is sent to it, unless its server says it is too much."""

    clock: FakeClock
    server: Channel | Account
    num_limited: int = 0
    posts: list[tuple[float, str, str]] = field(default_factory=list)
    """When, of which answer, and what."""

    async def show(self, name: str, text: str) -> None:
        await self.clock.sleep(LATENCY_S)
        wait_s = self.server.take(self.clock.now_s())
        if wait_s:
            self.num_limited += 1
            raise Limited(wait_s)
        self.posts.append((self.clock.now_s(), name, text))

    def of(self, name: str) -> list[str]:
        return [text for _, each, text in self.posts if each == name]


class Simulation:
    """Answers that are shown through one pacer."""

    def __init__(self, pace: Pace, server: Channel | Account) -> None:
        self.clock = FakeClock()
        self.platform = Platform(self.clock, server)
        self.pacer = Pacer(pace, self.clock)
        self.final_waits_s: list[float] = []

    async def answer(self, name: str, seconds: float, begins_s: float = 0.0) -> None:
        """Show an answer that takes so long, as the bot does."""
        await self.clock.sleep(begins_s)
        async with self.pacer.stream() as stream:
            async with running(self._previews(name, stream)):
                await self.clock.sleep(seconds)
            wanted_s = self.clock.now_s()
            await self.pacer.send(FINAL, stream, lambda: self.platform.show(name, "final"))
            self.final_waits_s.append(self.clock.now_s() - wanted_s)

    async def _previews(self, name: str, stream: object) -> None:
        priority = FIRST_POST
        try:
            while True:
                try:
                    await self.pacer.send(priority, stream, self._shower(name))  # type: ignore[arg-type]
                    priority = PREVIEW
                except Limited:
                    continue
        except Skipped:
            return

    def _shower(self, name: str) -> Callable[[], object]:
        return lambda: self.platform.show(name, f"at {self.clock.now_s()}")

    async def run(self, *answers: object, for_s: float = 300.0) -> None:
        async with asyncio.TaskGroup() as group:
            for each in answers:
                group.create_task(each)  # type: ignore[arg-type]
            await self.clock.advance(for_s)


async def test_behaviour_02_two_answers_in_a_channel_keep_within_its_bucket_and_both_finish() -> None:
    simulation = Simulation(ChannelPace(), Channel())
    await simulation.run(simulation.answer("one", 40), simulation.answer("two", 45, begins_s=3))
    platform = simulation.platform
    assert platform.num_limited == 0
    assert max(simulation.final_waits_s) < 6
    for name in ("one", "two"):
        assert platform.of(name).count("final") == 1
        assert platform.of(name)[-1] == "final"
        assert 15 <= len(platform.of(name)) <= 25


async def test_behaviour_02_holds_for_many_answers_that_end_together() -> None:
    simulation = Simulation(ChannelPace(), Channel())
    await simulation.run(*(simulation.answer(f"{number}", 30) for number in range(8)))
    assert simulation.platform.num_limited == 0
    assert all(simulation.platform.of(f"{number}").count("final") == 1 for number in range(8))
    assert max(simulation.final_waits_s) < 10.5


async def test_behaviour_02_an_answer_alone_is_shown_every_second_or_so() -> None:
    simulation = Simulation(ChannelPace(), Channel())
    await simulation.run(simulation.answer("one", 60))
    assert 40 <= len(simulation.platform.posts) <= 50


@pytest.mark.parametrize("level", [0.0, 5.0, 10.0], ids=["empty", "half full", "full"])
async def test_behaviour_03_a_long_answer_on_a_default_account_is_limited_thrice_at_most(
    level: float,
) -> None:
    simulation = Simulation(AccountPace(), Account(level=level))
    await simulation.run(simulation.answer("one", 60))
    platform = simulation.platform
    assert platform.num_limited <= (3 if level else 0)
    assert platform.of("one").count("final") == 1
    assert 4 <= len(platform.posts) - 1 <= 60
    assert max(simulation.final_waits_s) < 6


@pytest.mark.parametrize("per_s", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("burst", [2.0, 5.0, 10.0])
async def test_behaviour_03_holds_where_the_account_may_do_less_than_we_believe(
    burst: float, per_s: float
) -> None:
    simulation = Simulation(AccountPace(), Account(burst, per_s))
    await simulation.run(simulation.answer("one", 60))
    assert simulation.platform.num_limited <= 4  # three previews, and the final
    assert simulation.platform.of("one")[-1] == "final"


async def test_behaviour_03_an_answer_is_edited_sixty_times_at_most_however_fast_the_account_is() -> None:
    simulation = Simulation(AccountPace(burst=1000.0, per_s=100.0), Account(1000.0, 100.0))
    await simulation.run(simulation.answer("one", 1200), for_s=1300)
    assert len(simulation.platform.posts) == 1 + 60


async def test_behaviour_03_answers_one_after_the_other_all_arrive() -> None:
    simulation = Simulation(AccountPace(), Account())
    await simulation.run(*(simulation.answer(f"{number}", 20, 25.0 * number) for number in range(8)))
    assert simulation.platform.num_limited == 0
    assert all(simulation.platform.of(f"{number}")[-1] == "final" for number in range(8))


async def test_with_more_than_three_answers_on_a_default_account_only_finals_are_sent() -> None:
    simulation = Simulation(AccountPace(), Account())
    await simulation.run(*(simulation.answer(f"{number}", 40) for number in range(6)))
    assert sorted(text for *_, text in simulation.platform.posts) == ["final"] * 6
    assert simulation.platform.num_limited == 0


async def test_three_answers_on_a_default_account_are_shown_while_they_are_written() -> None:
    simulation = Simulation(AccountPace(), Account())
    await simulation.run(*(simulation.answer(f"{number}", 60) for number in range(3)))
    assert simulation.platform.num_limited == 0
    assert all(len(simulation.platform.of(f"{number}")) > 2 for number in range(3))
    assert max(simulation.final_waits_s) < 6


async def test_previews_of_a_long_answer_become_rarer() -> None:
    simulation = Simulation(AccountPace(burst=1000.0, per_s=100.0), Account(1000.0, 100.0))
    await simulation.run(simulation.answer("one", 60))
    times = [at_s for at_s, *_ in simulation.platform.posts[:-1]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(later > earlier - 0.05 for earlier, later in pairwise(gaps))
    assert gaps[0] < 1.5
    assert gaps[-1] == pytest.approx(5.0, abs=0.1)


def test_each_refusal_halves_the_rate_of_previews_for_a_while() -> None:
    pace = AccountPace(burst=1e6, per_s=1e3)
    stream = pace.begin(0.0)
    pace.note_sent(PREVIEW, stream, 100.0)
    assert pace.wait_s(PREVIEW, stream, 100.0) == pytest.approx(5.0)
    pace.note_limited(0.001, 100.0)
    assert pace.wait_s(PREVIEW, stream, 100.0) == pytest.approx(10.0)
    pace.note_limited(0.001, 101.0)
    assert pace.wait_s(PREVIEW, stream, 101.0) == pytest.approx(19.0)
    for _ in range(100):
        pace.note_limited(0.001, 101.0)
    assert pace.wait_s(PREVIEW, stream, 101.0) < 100
    pace.note_sent(PREVIEW, stream, 200.0)
    assert pace.wait_s(PREVIEW, stream, 200.0) == pytest.approx(5.0)


def test_what_the_server_says_of_the_account_is_believed() -> None:
    pace = AccountPace()
    pace.note_limited(5.0, 0.0)  # its level is 10: one more in 5 s, the next in 10 s
    assert pace.wait_s(FINAL, None, 4.0) == pytest.approx(1.0)
    assert pace.wait_s(FINAL, None, 5.0) == 0
    pace.note_sent(FINAL, None, 5.0)
    assert pace.wait_s(FINAL, None, 5.0) == pytest.approx(5.0)


def test_finals_and_notices_are_always_sent_some_time() -> None:
    for pace in (ChannelPace(), AccountPace()):
        streams = [pace.begin(0.0) for _ in range(50)]
        streams[0].num_failures = MOST_FAILURES
        streams[0].num_edits = 1000
        for priority in (FINAL, NOTICE, CONTROL):
            assert pace.wait_s(priority, streams[0], 1.0) < NEVER
        assert pace.wait_s(PREVIEW, streams[0], 1.0) == NEVER


PACES = st.sampled_from([ChannelPace, AccountPace])
EVENTS = st.lists(
    st.tuples(st.sampled_from(Priority), st.floats(0, 8), st.sampled_from([0.0, 0.0, 0.0, 2.0])), max_size=60
)


@given(PACES, EVENTS)
def test_what_is_more_important_never_waits_longer(
    pace_of: Callable[[], Pace], events: list[tuple[Priority, float, float]]
) -> None:
    pace, now_s = pace_of(), 0.0
    stream = pace.begin(now_s)
    for priority, pause_s, limited_s in events:
        now_s += pause_s
        waits = [pace.wait_s(each, stream, now_s) for each in (FINAL, NOTICE, CONTROL, PREVIEW)]
        assert waits == sorted(waits)
        if pace.wait_s(priority, stream, now_s) == 0:
            pace.note_sent(priority, stream, now_s)
        if limited_s:
            pace.note_limited(limited_s, now_s)


@given(EVENTS)
def test_a_channel_is_never_sent_more_than_it_takes(events: list[tuple[Priority, float, float]]) -> None:
    pace, server, now_s = ChannelPace(), Channel(), 0.0
    for priority, pause_s, _ in events:
        now_s += pause_s / 8
        if pace.wait_s(priority, None, now_s) == 0:
            pace.note_sent(priority, None, now_s)
            assert server.take(now_s) == 0


@given(EVENTS)
def test_an_account_is_never_sent_more_than_it_takes(events: list[tuple[Priority, float, float]]) -> None:
    pace, server, now_s = AccountPace(), Account(), 0.0
    for priority, pause_s, _ in events:
        now_s += pause_s
        wait_s = pace.wait_s(priority, None, now_s)
        assert wait_s < math.inf
        if wait_s == 0:
            pace.note_sent(priority, None, now_s)
            assert server.take(now_s) == 0
