"""Whoever stops the bot in peace loses no question: what waits is answered after the next start."""

import asyncio
from pathlib import Path

from bot.sweeping import SWEEP_S
from tests.bot.world import World, open_world

LONG = "word " * 30
LONG_ENOUGH_S = 60.0
"""In real time: whatever is written ends before."""


async def stop(world: World, within_s: float = 0.0) -> None:
    """As SIGTERM does; what is being written has so many seconds of real time."""
    draining = asyncio.create_task(world.core.drain(within_s))
    await world.until(draining.done)
    await draining


async def states(world: World) -> list[str]:
    return [turn.state for turn in await world.turns()]


async def two_questions(world: World, answer: str = LONG) -> None:
    """One that is being answered, and one that waits for that."""
    world.brain.answer = lambda prompt: answer
    await world.say("one")
    await world.pass_(2)
    await world.say("two")
    await world.until(lambda: "(queued: 1 ahead)" in world.port.texts)


async def test_what_waits_is_left_as_it_is_and_answered_after_the_next_start(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await two_questions(before)
        await stop(before, LONG_ENOUGH_S)
        assert await states(before) == ["done", "queued"]
        assert before.port.texts == [LONG, "(queued: 1 ahead)"]
        assert len(before.brain.requests) == 1, "nothing new is begun"
        assert before.port.marks[-1] == ("e2", "")
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == [LONG, "You said: two"]


async def test_what_is_cut_off_says_what_a_restart_says_and_is_paid_for_so_far(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await two_questions(before)
        await stop(before)
        assert await states(before) == ["interrupted", "queued"]
        cut, _ = before.port.messages
        assert cut.post.text.endswith("\n\n(I was restarted: `continue` goes on)")
        assert cut.post.controls == ("continue", "retry", "report")
        turn, _ = await before.turns()
        standing = await before.standing()
        cost = turn.progress.new_tokens + turn.progress.prefill_tokens // 4
        assert (standing.held, standing.used_today) == (0, cost)
        assert 0 < turn.progress.new_tokens < len(LONG)
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == [cut.post.text, "You said: two"]


async def test_what_had_shown_nothing_is_answered_from_its_start_and_costs_nothing_before(
    store_path: Path,
) -> None:
    async with open_world(store_path) as before:
        before.brain.token_s = 100.0
        await before.say("hello")
        await before.until(lambda: before.brain.requests)
        assert (await before.standing()).held > 0
        await stop(before)
        assert await states(before) == ["queued"]
        standing = await before.standing()
        assert (standing.held, standing.used_today) == (0, 0)
        assert before.port.texts == []
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == ["You said: hello"]


async def test_what_was_just_received_is_not_begun(store_path: Path) -> None:
    async with open_world(store_path) as before:
        await before.say("hello")
        await stop(before)
        assert before.brain.requests == []
    async with open_world(store_path, boot="next", like=before) as world:
        await world.quiet()
        assert world.port.texts == ["You said: hello"]


async def test_what_waits_while_an_answer_takes_minutes_to_end_is_given_up_by_nobody(
    store_path: Path,
) -> None:
    async with open_world(store_path) as world:
        world.brain.token_s = 1.0
        await two_questions(world, "x" * 150)
        draining = asyncio.create_task(world.core.drain(LONG_ENOUGH_S))
        for _ in range(2 * round(SWEEP_S) // 10):
            await world.clock.advance(10)
            await world.store_is_quiet()
        assert await states(world) == ["running", "queued"]
        await world.until(draining.done)
        assert await states(world) == ["done", "queued"]
