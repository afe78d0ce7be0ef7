"""Instructions that nobody follows any more are closed on the servers at once, others stay there."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.words import Where
from tests.bot.platform import ADA, BOB, CHANNEL, DIRECT
from tests.bot.test_commands import told
from tests.bot.world import RULES, World, open_world

PIRATE, POET = "You are a pirate.", "You are a poet."
BOBS = Where("fake", "bobs", "direct")


async def forgets_everything(world: World) -> None:
    for _ in range(2):
        await told(world, "forget", what="everything")


async def test_behaviour_28_forgetting_a_person_closes_what_was_told_their_instructions(world: World) -> None:
    await told(world, "persona set", text=PIRATE)
    await world.ask("hello")
    assert world.brain.forgotten_personas == []
    await forgets_everything(world)
    assert world.brain.forgotten_personas == [PIRATE]


async def test_instructions_that_somebody_else_has_word_for_word_stay(world: World) -> None:
    for author, where in ((ADA, DIRECT), (BOB, BOBS)):
        await told(world, "persona set", author=author, where=where, text=PIRATE)
    await forgets_everything(world)
    assert world.brain.forgotten_personas == []
    await told(world, "persona clear", author=BOB, where=BOBS)
    assert world.brain.forgotten_personas == [PIRATE]


async def test_instructions_of_a_conversation_in_a_channel_stay_as_long_as_it_has_them(world: World) -> None:
    await world.ask("hello", where=CHANNEL, author=BOB)
    await told(world, "persona set", where=CHANNEL, author=BOB, text=PIRATE)
    await told(world, "persona set", text=PIRATE)
    await forgets_everything(world)
    assert world.brain.forgotten_personas == []
    await told(world, "persona set", where=CHANNEL, author=BOB, text=POET)
    assert world.brain.forgotten_personas == [PIRATE]


@pytest.mark.parametrize(("command", "arguments"), [("persona clear", {}), ("persona set", {"text": POET})])
async def test_other_instructions_close_those_before(
    world: World, command: str, arguments: dict[str, str]
) -> None:
    await told(world, "persona set", text=PIRATE)
    await world.ask("hello")
    await told(world, command, **arguments)
    assert world.brain.forgotten_personas == [PIRATE]


@pytest.mark.parametrize("where", [DIRECT, CHANNEL])
async def test_other_instructions_close_the_session_that_began_with_those_before(
    world: World, where: Where
) -> None:
    await world.ask("hello", where=where, author=BOB)
    (turn,) = await world.turns()
    await told(world, "persona set", where=where, author=BOB, text=PIRATE)
    assert world.brain.forgotten == [turn.question.conversation_id]


async def test_other_instructions_end_what_is_written_and_waits_under_those_before(world: World) -> None:
    world.brain.answer = lambda prompt: "A long story. " * 14
    await world.say("hello")
    await world.until(lambda: world.port.texts)
    await world.pass_(2)
    await world.say("again")
    await world.pass_(1)
    await told(world, "persona set", text=PIRATE)
    assert [turn.state for turn in await world.turns()] == ["stopped", "stopped"]
    assert len(world.brain.requests) == 1


async def test_the_same_instructions_once_more_stay(world: World) -> None:
    for _ in range(2):
        await told(world, "persona set", text=PIRATE)
    assert world.brain.forgotten_personas == []


async def test_forgetting_the_conversation_under_instructions_closes_them(world: World) -> None:
    await told(world, "persona set", text=PIRATE)
    await world.ask("hello")
    for _ in range(2):
        await told(world, "forget", what="here")
    assert world.brain.forgotten_personas == [PIRATE]


@pytest_asyncio.fixture
async def piratical(store_path: Path) -> AsyncIterator[World]:
    """Where everybody talks to a pirate."""
    wishes = replace(RULES.wishes, system=PIRATE)
    async with open_world(store_path, rules=replace(RULES, wishes=wishes)) as world:
        yield world


async def test_what_everybody_is_told_stays_though_somebody_has_said_the_same(piratical: World) -> None:
    await told(piratical, "persona set", text=PIRATE)
    await forgets_everything(piratical)
    assert piratical.brain.forgotten_personas == []
