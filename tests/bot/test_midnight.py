"""A day that begins while a question waits: its grant is there when the question is answered."""

from dataclasses import replace
from pathlib import Path

from storage.amounts import DAY_MS, Rates
from tests.bot.world import RULES, World, open_world

POOR = replace(RULES, rates=Rates(daily_grant=50, balance_cap=100, prefill_percent=25, least_new_tokens=8))


def turn_to_midnight(world: World, seconds: float) -> None:
    """So many seconds are left of the day."""
    world.clock._start_ms += DAY_MS - world.clock.now_ms() % DAY_MS - round(1000 * seconds)


async def test_what_waits_past_midnight_is_answered_from_the_new_day(store_path: Path) -> None:
    async with open_world(store_path, rules=POOR) as world:
        turn_to_midnight(world, 5)
        world.brain.answer, world.brain.token_s = (lambda prompt: "x" * 500), 0.2
        await world.say("one")
        await world.pass_(2)
        await world.say("two")
        await world.until(lambda: "(queued: 1 ahead)" in world.port.texts)
        world.brain.answer = lambda prompt: "fine"
        await world.quiet()
        assert world.port.texts[0].startswith("x" * 40)
        assert world.port.texts[1] == "fine"
        assert (await world.standing()).used_today > 0


async def test_what_waits_within_a_day_gets_nothing_twice(store_path: Path) -> None:
    async with open_world(store_path, rules=POOR) as world:
        turn_to_midnight(world, 600)
        world.brain.answer, world.brain.token_s = (lambda prompt: "x" * 500), 0.2
        await world.say("one")
        await world.pass_(2)
        await world.say("two")
        await world.quiet()
        assert world.port.texts[1].startswith("Your quota is too low for an answer (")
