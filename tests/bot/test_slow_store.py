"""A disk that takes its time holds up who waits for it, and nobody else."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.bot.test_sessions import FIRST, OFFERS, small, talking
from tests.end_to_end.exact import SmallModel, prompt
from tests.end_to_end.swarm import open_swarm

__all__ = ["small"]

pytestmark = pytest.mark.timeout(120)

WRITES_S = 1.5


async def longest_hold_until(task: asyncio.Task[None]) -> float:
    """For how long nothing else ran in this event loop, at most."""
    longest_s = 0.0
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest_s = max(longest_s, time.monotonic() - before)
    return longest_s


async def test_a_session_that_is_opened_waits_for_a_slow_store_and_the_bot_goes_on(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    async with (
        open_swarm(small, *OFFERS) as swarm,
        talking(small, swarm, store_path, tmp_path / "key") as talk,
    ):
        writing = asyncio.create_task(talk.store.write(lambda connection: time.sleep(WRITES_S)))
        answering = asyncio.create_task(talk.answer(FIRST, prompt(1, 40)))
        assert await longest_hold_until(writing) < WRITES_S / 2
        assert len(await answering) == 46
