"""Whoever sends waits for its turn: the most important first, as a platform allows, and never for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.sending.pacer import LEAST_RETRY_S, PATIENCE_S, Pacer, Skipped
from bot.sending.pacing import MOST_FAILURES, AccountPace, ChannelPace, Priority, Stream
from bot.words import Limited, Refused
from swarm.background import RunningGroup, running_group
from tests.bot.clock import FakeClock, settle

FINAL, NOTICE, FIRST_POST, CONTROL, PREVIEW = Priority


class Room:
    """A pacer, the time, and what was sent."""

    def __init__(self, group: RunningGroup, pacer: Pacer, clock: FakeClock) -> None:
        self.group = group
        self.pacer = pacer
        self.clock = clock
        self.sent: list[tuple[float, str]] = []

    def send(self, priority: Priority, name: str, stream: Stream | None = None) -> asyncio.Task[None]:
        return self.group.create_task(self.pacer.send(priority, stream, self.works(name)))

    def works(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            self.sent.append((round(self.clock.now_s(), 1), name))

        return work

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.sent]


@asynccontextmanager
async def room_with(slots: int = 2, window_s: float = 10.0, most_waiting: int = 200) -> AsyncIterator[Room]:
    clock = FakeClock()
    pacer = Pacer(ChannelPace(slots, window_s), clock, most_waiting=most_waiting)
    async with running_group() as group:
        yield Room(group, pacer, clock)
    assert pacer.num_waiting == 0


async def fill(room: Room, *, slots: int = 2) -> None:
    """Take all slots of the window."""
    for _ in range(slots):
        room.send(FINAL, "early")
    await settle()
    room.sent.clear()


async def test_what_may_be_sent_is_sent_at_once_and_its_result_returned() -> None:
    async with room_with() as room:

        async def work() -> str:
            return "an id"

        assert await room.pacer.send(FINAL, None, work) == "an id"


async def test_the_most_important_goes_first_and_then_who_came_first() -> None:
    async with room_with(slots=1, window_s=4.0) as room:
        await fill(room, slots=1)
        for name in "ab":
            room.send(NOTICE, f"notice {name}")
            room.send(FINAL, f"final {name}")
        await room.clock.advance(17)
        assert room.names == ["final a", "final b", "notice a", "notice b"]
        assert [at_s for at_s, _ in room.sent] == pytest.approx([4, 8, 12, 16], abs=0.1)


async def test_a_slot_is_kept_for_finals() -> None:
    async with room_with(slots=2) as room:
        room.send(FIRST_POST, "first")
        room.send(CONTROL, "control")
        await room.clock.advance(1)
        room.send(FINAL, "final")
        await room.clock.advance(1)
        assert room.names == ["first", "final"]
        await room.clock.advance(30)
        assert room.names[2:] == ["control"]


async def test_a_waiter_that_is_cancelled_leaves_no_trace() -> None:
    async with room_with(slots=1) as room:
        await fill(room, slots=1)
        first = room.send(FINAL, "first")
        room.send(FINAL, "second")
        await room.clock.advance(9)
        first.cancel()
        await settle()
        assert room.pacer.num_waiting == 1
        await room.clock.advance(1.1)
        assert room.names == ["second"]


class WatchedPace(ChannelPace):
    """Does something when it has been asked for the n-th time after ten seconds."""

    def __init__(self, number: int) -> None:
        super().__init__(slots=1, window_s=10.0)
        self.number = number
        self.action: Callable[[], object] = lambda: None

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        self.number -= now_s >= 10
        if self.number == 0:
            self.action()
        return super().wait_s(priority, stream, now_s)


@pytest.mark.parametrize("number", range(1, 12))
async def test_one_that_is_cancelled_just_when_its_turn_comes_does_not_keep_the_others(number: int) -> None:
    pace, clock = WatchedPace(number), FakeClock()
    async with running_group() as group:
        room = Room(group, Pacer(pace, clock), clock)
        await fill(room, slots=1)
        second = room.send(NOTICE, "second")
        await clock.advance(3)
        pace.action = room.send(FINAL, "first").cancel
        await clock.advance(7.1)
        if room.names == ["first"]:  # it was cancelled too late
            await clock.advance(10.1)
        assert second.done()
        assert room.names in (["second"], ["first", "second"])
        assert room.sent[-1][0] == pytest.approx(10.0 * len(room.sent), abs=0.1)


async def test_whoever_is_less_important_wakes_the_one_that_goes_before_it() -> None:
    async with room_with(slots=1) as room:
        await fill(room, slots=1)
        room.send(NOTICE, "second")
        await room.clock.advance(3)
        room.send(FINAL, "first")  # it would look again at 10.01 s, the other one at 10 s
        await room.clock.advance(7.001)
        assert room.names == ["first"]
        await room.clock.advance(10.1)


async def test_nobody_but_previews_waits_for_ever() -> None:
    async with room_with(slots=2) as room:
        room.send(CONTROL, "control")
        await fill(room, slots=1)
        room.send(CONTROL, "late")
        for _ in range(20):
            room.send(FINAL, "final")
            room.send(FINAL, "final")
            await room.clock.advance(5)
        at_s = next(at_s for at_s, name in room.sent if name == "late")
        assert at_s <= PATIENCE_S + 10


async def test_previews_may_wait_for_as_long_as_there_is_something_else() -> None:
    async with room_with(slots=2) as room, room.pacer.stream() as stream:
        await fill(room)
        room.group.create_task(ignoring_skips(room.pacer.send(PREVIEW, stream, room.works("preview"))))
        for _ in range(12):
            room.send(FINAL, "final")
            await room.clock.advance(5)
        assert "preview" not in room.names


async def ignoring_skips(work: Awaitable[None]) -> None:
    try:
        await work
    except Skipped:
        return


async def test_of_an_answer_only_the_newest_preview_waits_and_none_when_there_is_the_final() -> None:
    async with room_with(slots=2) as room, room.pacer.stream() as stream:
        await fill(room)
        older = asyncio.create_task(room.pacer.send(PREVIEW, stream, room.works("older")))
        await settle()
        newer = asyncio.create_task(room.pacer.send(PREVIEW, stream, room.works("newer")))
        await settle()
        with pytest.raises(Skipped):
            await older
        room.send(FINAL, "final", stream)
        await settle()
        with pytest.raises(Skipped):
            await newer
        await room.clock.advance(60)
        assert room.names == ["final"]


async def test_previews_that_wait_end_with_their_answer() -> None:
    async with room_with(slots=2) as room:
        await fill(room)
        async with room.pacer.stream() as stream:
            waiting = asyncio.create_task(room.pacer.preview_turn(stream))
            await settle()
        with pytest.raises(Skipped):
            await waiting


async def test_the_turn_of_a_preview_costs_nothing_until_it_is_sent() -> None:
    async with room_with(slots=3) as room, room.pacer.stream() as stream:
        for _ in range(10):
            await room.pacer.preview_turn(stream)
        await room.pacer.send(PREVIEW, stream, room.works("preview"))
        turn = asyncio.create_task(room.pacer.preview_turn(stream))
        await room.clock.advance(1.2)
        assert not turn.done()
        await room.clock.advance(0.1)
        assert turn.done()


async def test_answers_in_a_channel_share_its_previews_until_one_of_them_ends() -> None:
    async with room_with(slots=5, window_s=5.0) as room, room.pacer.stream() as stream:
        async with room.pacer.stream():
            for name in ("first", "second", "third"):
                room.send(PREVIEW, name, stream)
                await room.clock.advance(2.6)
        assert room.sent == [(0.0, "first"), (2.6, "second"), (5.2, "third")]
        room.send(PREVIEW, "fourth", stream)
        await room.clock.advance(1)
        assert room.sent[3:] == [(7.8, "fourth")]


async def test_a_preview_that_waits_comes_sooner_when_another_answer_ends() -> None:
    async with room_with(slots=5, window_s=5.0) as room, room.pacer.stream() as stream:
        async with room.pacer.stream():
            room.send(PREVIEW, "first", stream)
            await settle()
            room.send(PREVIEW, "second", stream)
            await room.clock.advance(1.5)
            assert room.names == ["first"]
        await settle()
        assert room.names == ["first", "second"]


class Limiting:
    """Work that a platform refuses for some times."""

    def __init__(self, clock: FakeClock, *retry_after_s: float) -> None:
        self._clock = clock
        self._retry_after_s = list(retry_after_s)
        self.tried_s: list[float] = []
        self.num_done = 0

    async def __call__(self) -> str:
        self.tried_s.append(round(self._clock.now_s(), 1))
        if self._retry_after_s:
            raise Limited(self._retry_after_s.pop(0))
        self.num_done += 1
        return "done"


async def test_behaviour_04_a_final_that_was_limited_is_sent_again_and_delivered_once() -> None:
    async with room_with(slots=5) as room, room.pacer.stream() as stream:
        work = Limiting(room.clock, 4.7, 2.0)
        task = room.group.create_task(room.pacer.send(FINAL, stream, work))
        await room.clock.advance(60)
        assert task.result() == "done"
        assert work.tried_s == [0.0, 4.7, 6.7]
        assert work.num_done == 1


async def test_behaviour_04_a_refusal_for_one_is_one_for_all() -> None:
    async with room_with(slots=5) as room:
        room.group.create_task(room.pacer.send(NOTICE, None, Limiting(room.clock, 3.0)))
        await settle()
        room.send(FINAL, "final")
        await room.clock.advance(2.9)
        assert room.names == []
        await room.clock.advance(0.2)
        assert room.names == ["final"]


async def test_behaviour_04_a_preview_that_was_limited_is_not_tried_again() -> None:
    async with room_with(slots=5) as room, room.pacer.stream() as stream:
        for _ in range(MOST_FAILURES):
            work = Limiting(room.clock, 1.0)
            task = asyncio.create_task(room.pacer.send(PREVIEW, stream, work))
            await room.clock.advance(20)
            with pytest.raises(Limited):
                await task
            assert len(work.tried_s) == 1
        with pytest.raises(Skipped):
            await room.pacer.send(PREVIEW, stream, room.works("never"))
        await room.pacer.send(FINAL, stream, room.works("final"))


async def test_three_previews_that_failed_otherwise_are_the_last_as_well() -> None:
    async def refused() -> None:
        raise Refused

    async with room_with(slots=5) as room, room.pacer.stream() as stream:
        for _ in range(MOST_FAILURES):
            task = asyncio.create_task(room.pacer.send(PREVIEW, stream, refused))
            await room.clock.advance(20)
            with pytest.raises(Refused):
                await task
        with pytest.raises(Skipped):
            await room.pacer.preview_turn(stream)


async def test_other_errors_are_for_the_sender() -> None:
    async def refused() -> None:
        raise Refused

    async with room_with() as room:
        with pytest.raises(Refused):
            await room.pacer.send(FINAL, None, refused)


@pytest.mark.parametrize("named_s", [0.0, -1.0, float("nan")])
async def test_a_platform_that_names_no_time_is_asked_ever_more_rarely(named_s: float) -> None:
    async with room_with(slots=100) as room:
        work = Limiting(room.clock, *[named_s] * 50)
        task = asyncio.create_task(room.pacer.send(FINAL, None, work))
        await room.clock.advance(600)
        gaps = [later - earlier for earlier, later in pairwise(work.tried_s)]
        assert gaps[0] >= LEAST_RETRY_S
        assert len(work.tried_s) < 12
        with pytest.raises(Limited):
            await task


@pytest.mark.parametrize("named_s", [400.0, 1e9, float("inf")])
async def test_nobody_waits_longer_than_the_deadline(named_s: float) -> None:
    async with room_with() as room:
        with pytest.raises(Limited):
            await room.pacer.send(FINAL, None, Limiting(room.clock, named_s))
        assert room.clock.now_s() == 0
        await room.clock.advance(601)
        await room.pacer.send(FINAL, None, room.works("later"))


async def test_few_may_wait_and_previews_leave_room_for_finals() -> None:
    async with room_with(slots=2, most_waiting=4) as room, room.pacer.stream() as stream:
        await fill(room)
        for number in range(2):
            room.send(FINAL, f"final {number}")
        await settle()
        with pytest.raises(Limited):
            await room.pacer.send(PREVIEW, stream, room.works("preview"))
        for number in range(2, 4):
            room.send(FINAL, f"final {number}")
        await settle()
        with pytest.raises(Limited):
            await room.pacer.send(FINAL, None, room.works("too many"))
        assert room.pacer.num_waiting == 4
        await room.clock.advance(60)
        assert len(room.sent) == 4


async def test_with_too_many_answers_on_a_slow_account_only_finals_are_sent() -> None:
    pacer = Pacer(AccountPace(), FakeClock())
    room = Room(None, pacer, FakeClock())  # type: ignore[arg-type]
    async with pacer.stream() as one, pacer.stream(), pacer.stream(), pacer.stream():
        for priority in (PREVIEW, FIRST_POST):
            with pytest.raises(Skipped):
                await pacer.send(priority, one, room.works("no"))
        await pacer.send(FINAL, one, room.works("final"))
        await pacer.send(NOTICE, one, room.works("notice"))
    assert room.names == ["final", "notice"]


SENDERS = st.lists(
    st.tuples(st.sampled_from(Priority), st.integers(0, 20), st.sampled_from([None, None, None, 0.5, 3.0])),
    max_size=25,
)


@given(SENDERS, st.lists(st.integers(0, 24), max_size=5))
async def test_all_but_previews_are_sent_once_whoever_is_cancelled_or_limited(
    senders: list[tuple[Priority, int, float | None]], cancelled: list[int]
) -> None:
    async with room_with(slots=3, window_s=5.0) as room:
        tasks, works = [], []
        for priority, pause_s, limited_s in senders:
            works.append(Limiting(room.clock, *([limited_s] if limited_s else [])))
            tasks.append(asyncio.create_task(room.pacer.send(priority, None, works[-1])))
            await room.clock.advance(pause_s / 10)
        for number in cancelled:
            if number < len(tasks):
                tasks[number].cancel()
        await room.clock.advance(250)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for work, result, (priority, _, limited_s) in zip(works, results, senders, strict=True):
            assert work.num_done == (result == "done")
            is_excused = isinstance(result, asyncio.CancelledError) or (priority is PREVIEW and limited_s)
            assert work.num_done == 1 or is_excused
        assert room.pacer.num_waiting == 0
        assert room.clock.num_sleepers == 0
