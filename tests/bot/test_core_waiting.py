"""What people see while they wait: their place in the queue, and how much is read before the first word."""

import pytest

from bot.brain import Event
from bot.sending.pacer import Pacer
from bot.sending.pacing import AccountPace
from bot.words import Author
from tests.bot.world import World


async def test_answers_that_wait_keep_nobody_from_seeing_one_that_is_written(world: World) -> None:
    world.port._pacer = Pacer(AccountPace(), world.clock)
    world.brain.answer = lambda prompt: "word " * 40
    for number in range(4):
        await world.say(f"question {number}", author=Author(f"p{number}", "P"))
        await world.pass_(1)
    await world.pass_(4)
    first, *waiting = world.port.messages
    assert first.post.text.endswith(" ...")
    num_shown = len(first.history)
    assert [shown.post.text for shown in waiting] == [f"(queued: {ahead} ahead)" for ahead in (1, 2, 3)]
    await world.pass_(8)
    assert len(first.history) > num_shown, "it is shown while it grows"


async def test_a_conversation_that_is_told_again_says_so_at_once(world: World) -> None:
    await world.ask("one")
    world.brain.events, world.brain.token_s = [Event("restoring", num_tokens=300)], 1.0
    await world.ask("two")
    assert world.port.messages[1].history[0] == "(restoring the conversation: 300 tokens)"
    assert world.port.texts[1] == "You said: two"


async def test_a_long_first_question_restores_nothing(world: World) -> None:
    world.brain.answer = lambda prompt: "fine"
    world.brain.events, world.brain.token_s = [Event("restoring", num_tokens=300)], 1.0
    await world.ask("one " * 75)
    (shown,) = world.port.messages
    assert not any("restoring" in text or "reading" in text for text in shown.history)


@pytest.mark.parametrize("events", [[], [Event("restoring", num_tokens=300)]])
async def test_who_waits_for_the_first_word_for_three_seconds_sees_how_much_is_read(
    world: World, events: list[Event]
) -> None:
    world.brain.answer = lambda prompt: "yes"
    world.brain.events, world.brain.token_s = events, 4.0
    await world.say("one")
    await world.pass_(2.8)
    assert world.port.texts == []
    await world.pass_(0.6)
    (turn,) = await world.turns()
    assert world.port.texts == [f"(reading: {len(world.brain.requests[0].ids)} tokens)"]
    assert turn.state == "running"
    await world.quiet()
    assert [text.partition("\n")[0] for text in world.port.texts] == ["yes"]


async def test_an_answer_that_goes_on_has_nothing_to_read(world: World) -> None:
    world.brain.answer = lambda prompt: "x" * 500
    await world.ask("one")
    world.brain.answer, world.brain.token_s = (lambda prompt: "and so on"), 4.0
    await world.call("continue")
    await world.quiet()
    assert not any("reading" in text for text in world.port.messages[1].history)
