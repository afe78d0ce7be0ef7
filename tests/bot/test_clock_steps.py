"""The machine's clock is set, or differs from that of a platform: people notice nothing of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from bot.receiving.haste import Patience
from bot.receiving.listening import BREAK_S, Listening
from storage.rate import Rate
from tests.bot.platform import said
from tests.bot.world import RULES, World, open_world

HOUR_MS = 3_600_000
AWAY = ("ada", "I was away when you wrote; please ask again.")
MINUTE_S = 60.0


async def test_nobody_waits_longer_because_the_clock_was_set_back(store_path: Path) -> None:
    rules = replace(RULES, rate=Rate(burst=1, interval_ms=6000))
    async with open_world(store_path, rules=rules) as world:
        await world.ask("one")
        world.clock._start_ms -= HOUR_MS
        await world.pass_(7)
        assert await world.ask("two") == "You said: two"
        assert world.port.told == []


async def test_who_is_ignored_is_heard_again_in_time_though_the_clock_was_set_back(store_path: Path) -> None:
    rules = replace(RULES, rate=Rate(burst=1, interval_ms=6000), patience=Patience(1, 60_000))
    async with open_world(store_path, rules=rules) as world:
        await world.ask("one")
        await world.say("too fast")
        await world.quiet()
        world.clock._start_ms -= HOUR_MS
        assert await world.ask("not heard") == ""
        await world.pass_(61)
        assert await world.ask("two") == "You said: two"


async def test_new_begins_anew_and_a_persona_holds_though_the_clock_was_set_back(world: World) -> None:
    await world.ask("one")
    world.clock._start_ms -= HOUR_MS
    await world.call("new")
    await world.quiet()
    await world.ask("two")
    await world.call("persona set", text="Be brief.")
    await world.quiet()
    await world.ask("three")
    parents = {turn.question.prompt: turn.parent_id for turn in await world.turns()}
    assert parents == {"one": None, "two": None, "three": None}
    assert "".join(map(chr, world.brain.requests[-1].ids)).startswith("s:Be brief.")


async def test_a_fork_goes_on_though_the_clock_was_set_back(world: World) -> None:
    await world.ask("one")
    await world.ask("two")
    world.clock._start_ms -= HOUR_MS
    await world.ask("another two", reply_to="m0")
    await world.ask("three")
    turns = {turn.question.prompt: turn for turn in await world.turns()}
    assert turns["three"].parent_id == turns["another two"].question.turn_id


async def talk_for(world: World, minutes: int) -> None:
    """Somebody says something every five minutes."""
    for _ in range(minutes // 5):
        await world.ask("hello")
        await world.clock.advance(5 * MINUTE_S)


async def ask_late(world: World, minutes: int) -> None:
    """Something comes that was said so many minutes ago, as its platform says."""
    event = said(
        f"{minutes}", f"late{minutes}", sent_ms=world.clock.now_ms() - round(minutes * MINUTE_S * 1000)
    )
    await world.core.receive("fake", [event])
    await world.quiet()


async def test_a_platform_whose_clock_is_behind_is_answered_by_a_bot_that_was_never_away(
    world: World,
) -> None:
    await talk_for(world, 20)
    await ask_late(world, 12)
    assert world.port.told == []
    assert world.port.texts[-1] == "You said: 12"


@pytest.mark.parametrize(("silent_s", "is_missed"), [(BREAK_S - 400, False), (BREAK_S, True)])
async def test_what_was_said_during_a_long_silence_may_have_waited(
    world: World, silent_s: float, is_missed: bool
) -> None:
    await talk_for(world, 30)
    await world.clock.advance(silent_s)
    await ask_late(world, 12)
    assert (AWAY in world.port.told) is is_missed


async def test_what_was_said_before_the_bot_had_begun_has_waited(world: World) -> None:
    await talk_for(world, 20)
    await ask_late(world, 30)
    assert world.port.told == [AWAY]


def test_a_platform_is_listened_to_since_the_last_long_silence() -> None:
    listening = Listening()
    assert listening.length_s("fake", 5.0) == 0.0
    for at_s in (10.0, 500.0, 1000.0):
        listening.hear("fake", at_s)
    assert listening.length_s("fake", 1200.0) == 1190.0
    listening.hear("other", 1200.0)
    listening.hear("fake", 1000.0 + BREAK_S)
    assert listening.length_s("fake", 1000.0 + BREAK_S) == 0.0
