"""Forgetting somebody whose answer is being written, or being shown, at that moment."""

import logging

import pytest

from bot.words import Unreachable
from tests.bot.platform import DIRECT
from tests.bot.world import World


async def forgets(world: World, what: str) -> str:
    """Ada says twice that she wants to be forgotten; returns what she is told then."""
    before = len(world.port.told)
    for number in (1, 2):
        await world.call("forget", what=what, where=DIRECT)
        await world.until(lambda number=number: len(world.port.told) == before + number)  # type: ignore[misc]
    return world.port.told[-1][1]


@pytest.mark.parametrize("what", ["everything", "here"])
async def test_behaviour_28_what_is_being_shown_is_shown_before_it_is_forgotten(
    world: World, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world.brain.token_s = 0.0
    world.port.failures["post"] = [Unreachable("not now")] * 4
    await world.say("my secret")
    await world.until(lambda: "once more in" in caplog.text)
    (said,) = await world.turns()
    assert said.state == "done"
    assert "deleted" in await forgets(world, what)
    assert await world.turns() == []
    await world.quiet()
    assert world.port.texts == ["You said: my secret"]
    assert "given up" not in caplog.text


@pytest.mark.parametrize("what", ["everything", "here"])
async def test_behaviour_28_what_is_being_written_is_stopped_and_forgotten(world: World, what: str) -> None:
    world.brain.answer = lambda prompt: "word " * 1000
    await world.say("my secret")
    await world.until(lambda: world.port.texts)
    await world.say("and this waits")
    assert "deleted" in await forgets(world, what)
    assert await world.turns() == []
    await world.quiet()
    assert world.port.texts[0].endswith("(stopped)")
    assert world.brain.forgotten == [1]
