"""Looks at the swarm are shared by all who ask at about the same time."""

import asyncio

import pytest

from bot.sessions.surveyor import FRESH_S, Fresh
from swarm.errors import SwarmError
from tests.bot.clock import FakeClock


class Looks:
    """Counts looks; each takes until the test lets it end, and may fail."""

    def __init__(self) -> None:
        self.number = 0
        self.may_end = asyncio.Event()
        self.errors: list[Exception] = []

    async def look(self) -> int:
        self.number += 1
        await self.may_end.wait()
        if self.errors:
            raise self.errors.pop()
        return self.number


async def test_a_hundred_who_ask_at_once_are_one_look() -> None:
    looks, clock = Looks(), FakeClock()
    fresh = Fresh(looks.look, clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fresh.get()) for _ in range(100)]
        await asyncio.sleep(0)
        looks.may_end.set()
    assert {task.result() for task in tasks} == {1}


async def test_what_was_seen_is_old_after_a_few_seconds() -> None:
    looks, clock = Looks(), FakeClock()
    looks.may_end.set()
    fresh = Fresh(looks.look, clock)
    assert [await fresh.get(), await fresh.get()] == [1, 1]
    await clock.advance(FRESH_S / 2)
    assert await fresh.get() == 1
    await clock.advance(FRESH_S / 2)
    assert await fresh.get() == 2


async def test_whoever_gives_up_and_a_look_that_fails_leave_nothing_behind() -> None:
    looks, clock = Looks(), FakeClock()
    fresh = Fresh(looks.look, clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await fresh.get()
    looks.may_end.set()
    looks.errors.append(SwarmError("the DHT stumbles"))
    with pytest.raises(SwarmError):
        await fresh.get()
    assert await fresh.get() == 3
