"""The clock that tests turn: time passes when they say so, for everybody in order."""

import asyncio

import pytest

from bot.clock import Clock
from tests.bot.clock import FakeClock, settle


async def test_whoever_sleeps_goes_on_in_order_and_at_its_time() -> None:
    clock, seen = FakeClock(), []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append((name, clock.now_s()))
        await clock.sleep(seconds)
        seen.append((name, clock.now_s()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(1.5)
        assert seen == [("a", 1.0)]
        await clock.advance(2.5)
    assert seen == [("a", 1.0), ("b", 2.0), ("c", 2.0), ("a", 2.0), ("b", 4.0), ("c", 4.0)]
    assert clock.now_s() == 4.0


async def test_time_stands_still_by_itself_and_both_times_go_together() -> None:
    clock: Clock = FakeClock(now_ms=5_000)
    await clock.sleep(0)
    assert (clock.now_ms(), clock.now_s()) == (5_000, 0.0)
    assert isinstance(clock, FakeClock)
    await clock.advance(1.5)
    assert (clock.now_ms(), clock.now_s()) == (6_500, 1.5)


async def test_whoever_is_cancelled_does_not_sleep_any_more() -> None:
    clock = FakeClock()
    sleeper = asyncio.create_task(clock.sleep(1))
    await settle()
    assert clock.num_sleepers == 1
    sleeper.cancel()
    await settle()
    assert clock.num_sleepers == 0
    await clock.advance(2)
    assert sleeper.cancelled()


async def test_a_task_that_never_waits_is_found() -> None:
    async def restless(clock: FakeClock) -> None:
        while True:
            await clock.sleep(0)

    task = asyncio.create_task(restless(FakeClock()))
    with pytest.raises(AssertionError, match="never waits"):
        await settle()
    task.cancel()
