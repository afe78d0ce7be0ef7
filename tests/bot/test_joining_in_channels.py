"""In a channel each message begins a conversation, but what is added at once is a part of the question."""

import pytest

from bot.words import Where
from tests.bot.platform import ADA, BOB, CHANNEL
from tests.bot.world import World


async def prompts(world: World) -> list[str]:
    await world.quiet()
    return [turn.question.prompt for turn in await world.turns()]


async def test_what_is_added_at_once_is_answered_together_below_the_first_message(world: World) -> None:
    first = await world.say("one", where=CHANNEL)
    for text in ("two", "three"):
        await world.pass_(0.4)
        await world.say(text, where=CHANNEL)
    assert await prompts(world) == ["one\ntwo\nthree"]
    assert [(shown.reply_to, shown.post.text) for shown in world.port.messages] == [
        (first, "You said: one\ntwo\nthree")
    ]


async def test_what_comes_later_begins_a_conversation_of_its_own(world: World) -> None:
    world.brain.token_s = 1.0
    await world.say("one", where=CHANNEL)
    await world.pass_(1.3)
    await world.say("two", where=CHANNEL)
    assert await prompts(world) == ["one", "two"]
    assert {turn.parent_id for turn in await world.turns()} == {None}


async def test_what_comes_when_something_is_to_be_seen_begins_one_too(world: World) -> None:
    world.brain.answer = lambda prompt: "A sentence. " * 30
    world.brain.token_s = 0.02
    await world.say("one", where=CHANNEL)
    await world.until(lambda: world.port.texts)
    assert (world.core.num_running, world.clock.now_s() < 1.2) == (1, True)
    await world.say("two", where=CHANNEL)
    assert await prompts(world) == ["one", "two"]


@pytest.mark.parametrize(
    ("where", "author"),
    [
        (CHANNEL, BOB),
        (Where("fake", "other", "group"), ADA),
        (Where("fake", "channel", "group", "$another thread"), ADA),
    ],
)
async def test_what_others_say_and_what_is_said_elsewhere_is_not_added(
    world: World, where: Where, author: object
) -> None:
    await world.say("one", where=CHANNEL)
    await world.pass_(0.2)
    await world.say("two", where=where, author=author)  # type: ignore[arg-type]
    assert sorted(await prompts(world)) == ["one", "two"]


async def test_what_is_asked_in_a_thread_is_not_added_to_from_outside(world: World) -> None:
    root = await world.say("one", where=CHANNEL)
    await world.quiet()
    await world.say("two", where=Where("fake", "channel", "group", root))
    await world.pass_(0.2)
    await world.say("three", where=CHANNEL)
    assert sorted(await prompts(world)) == ["one", "three", "two"]
