"""Answers that may not be shown where they were asked for: never silence, nor the same twice an hour."""

from bot.turns.troubles import NOT_ALLOWED
from bot.words import Refused
from tests.bot.platform import BOB, CHANNEL
from tests.bot.world import World


def lock(world: World) -> None:
    """As a thread that somebody has locked, or a channel in which we may not write."""
    world.port.failures["post"] = [Refused("no permission")] * 1000


async def test_whoever_asked_is_told_privately_and_pays_nothing(world: World) -> None:
    lock(world)
    await world.ask("hello", where=CHANNEL)
    assert world.port.told == [("ada", NOT_ALLOWED)]
    assert world.port.texts == []
    assert (await world.standing()).used_today == 0


async def test_each_asker_is_told_once_an_hour(world: World) -> None:
    lock(world)
    await world.ask("one", where=CHANNEL)
    await world.ask("two", where=CHANNEL)
    await world.ask("three", where=CHANNEL, author=BOB)
    assert world.port.told == [("ada", NOT_ALLOWED), ("bob", NOT_ALLOWED)]
    await world.clock.advance(3600)
    await world.ask("four", where=CHANNEL)
    assert world.port.told[2:] == [("ada", NOT_ALLOWED)]


async def test_nobody_is_told_of_an_answer_that_was_stopped(world: World) -> None:
    lock(world)
    world.brain.answer = lambda prompt: "word " * 100
    await world.say("hello")
    await world.until(lambda: world.brain.requests)
    await world.call("stop")
    await world.quiet()
    assert [turn.state for turn in await world.turns()] == ["stopped"]
    assert world.port.told == []


async def test_where_nothing_at_all_may_be_said_the_asker_is_written_to_in_a_chat_of_two(
    world: World,
) -> None:
    lock(world)
    world.port.failures["tell"] = [Refused("no permission")]
    await world.ask("hello", where=CHANNEL)
    assert world.port.written == [("ada", NOT_ALLOWED)]


async def test_whoever_cannot_be_told_either_costs_nobody_an_answer(world: World) -> None:
    lock(world)
    world.port.failures |= {"tell": [Refused("no permission")], "write_to": [Refused("no chat of two")]}
    await world.ask("one", where=CHANNEL)
    assert (world.port.told, world.port.written) == ([], [])
    world.port.failures.clear()
    assert await world.ask("two", where=CHANNEL) == "You said: two"
