"""Conversations that begin in a channel and go on in a thread of their own."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot.on_discord.port import CLOCK
from bot.on_discord.threads import LACKS
from bot.words import Where
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import JOIN_S, POST, RULES, Stage, open_stage, pause
from tests.bot.on_discord.test_restarts import STORY, run_until_killed, settled
from tests.discord_peer import Channel, FakeDiscord, Message, Permission, Person

OPEN = "POST /channels/{channel_id}/messages/{message_id}/threads"


@pytest_asyncio.fixture
async def threaded(fake: FakeDiscord, place: Place, store_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(fake, store_path, threads=True) as running:
        yield running


async def asks(stage: Stage, person: Person, channel: Channel, text: str) -> tuple[Message, Channel]:
    """Somebody asks in a channel; returns the message, and its thread once the answer is there."""
    asked = person.says(channel, text, mentions=[stage.fake.bot])
    await stage.until(lambda: asked.thread is not None and asked.thread.by(stage.fake.bot))
    await stage.quiet()
    assert asked.thread is not None
    return asked, asked.thread


async def test_a_question_in_a_channel_gets_a_thread_with_its_answer(threaded: Stage, place: Place) -> None:
    asked, thread = await asks(threaded, place.alice, place.channel, "Why is the sky blue?")
    assert thread.name == "Why is the sky blue?"
    assert thread.id == asked.id
    assert threaded.texts(thread) == ["You said: Why is the sky blue?"]
    assert threaded.texts(place.channel) == []


async def test_in_its_thread_a_conversation_goes_on_without_a_mention(threaded: Stage, place: Place) -> None:
    _, thread = await asks(threaded, place.alice, place.channel, "one")
    await pause(JOIN_S)
    place.bob.says(thread, "two")
    _, answer = await threaded.answers(thread, 2)
    assert answer.content == "You said: [Bob]:\ntwo"
    one, two = await threaded.turns()
    assert two.parent_id == one.question.turn_id


async def test_each_conversation_has_a_thread_and_a_command_gets_one_too(
    threaded: Stage, place: Place
) -> None:
    _, first = await asks(threaded, place.alice, place.channel, "one")
    _, second = await asks(threaded, place.alice, place.channel, "two")
    place.bob.runs("ask", {"text": "three"}, channel=place.channel)
    await threaded.until(lambda: len(place.channel.threads) == 3)
    third = place.channel.threads[-1]
    await threaded.answers(third, 1)
    assert [thread.name for thread in (first, second, third)] == ["one", "two", "three"]
    assert threaded.texts(third) == ["You said: three"]
    assert len({said.question.conversation_id for said in await threaded.turns()}) == 3


async def test_a_thread_and_a_direct_message_get_no_thread_of_their_own(
    threaded: Stage, place: Place
) -> None:
    theirs = place.bob.starts_thread(place.channel, "theirs")
    place.bob.says(theirs, "one", mentions=[threaded.fake.bot])
    place.bob.says(place.bob.direct, "two")
    await threaded.answers(theirs, 1)
    await threaded.answers(place.bob.direct, 1)
    assert threaded.fake.calls(OPEN) == []


async def test_who_replies_to_an_answer_in_the_channel_goes_on_there(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        place.alice.says(place.channel, "one", mentions=[fake.bot])
        (answer,) = await stage.answers(place.channel, 1)
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        place.alice.says(place.channel, "two", reply_to=answer)
        await stage.answers(place.channel, 2)
        assert fake.calls(OPEN) == []


@pytest.mark.parametrize("how", ["known", "refused"])
async def test_without_the_right_to_open_threads_it_replies_and_says_so_once(
    threaded: Stage, place: Place, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    if how == "known":
        place.channel.deny(place.guild.everyone, Permission.CREATE_PUBLIC_THREADS)
        threaded.fake.world.update_channel(place.channel)
        await threaded.until(lambda: _sees_denial(threaded, place))
    else:
        threaded.fake.fail_next(OPEN, 403, times=10, code=50013)
    for number, text in enumerate(("one", "two"), 1):
        asked = place.alice.says(place.channel, text, mentions=[threaded.fake.bot])
        answers = await threaded.answers(place.channel, number)
        assert answers[-1].reply_to is asked
    assert threaded.texts(place.channel) == ["You said: one", "You said: two"]
    said = [each.getMessage() for each in caplog.records if "no thread can be opened" in each.getMessage()]
    assert len(said) == 1
    assert str(place.channel.id) in said[0]
    assert (LACKS in said[0]) == (how == "known") == (not threaded.fake.calls(OPEN))


def _sees_denial(stage: Stage, place: Place) -> bool:
    channel = stage.discord.client.get_channel(place.channel.id)
    return not channel.permissions_for(channel.guild.me).create_public_threads  # type: ignore[union-attr]


async def test_a_thread_whose_opening_was_not_confirmed_is_used(threaded: Stage, place: Place) -> None:
    threaded.fake.lose_answer_of_next(OPEN)
    asked, thread = await asks(threaded, place.alice, place.channel, "hm")
    assert threaded.texts(thread) == ["You said: hm"]
    assert place.channel.threads == [thread]
    assert asked.thread is thread


async def test_after_a_crash_between_the_thread_and_the_first_post_there_is_one_thread_and_one_answer(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    fake.lose_answer_of_next(OPEN, times=100)

    def begin(stage: Stage) -> None:
        stage.discord.port.threads.by_default = True
        place.alice.says(place.channel, "hm", mentions=[fake.bot])

    await run_until_killed(fake, store_path, begin, lambda stage: place.channel.threads)
    fake.rest._plans.clear()
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        (thread,) = place.channel.threads
        await stage.answers(thread, 1)
        assert stage.texts(thread) == ["You said: hm"]
        assert stage.texts(place.channel) == []
        assert place.channel.threads == [thread]
        assert len(await settled(stage)) == 1


async def test_a_first_post_whose_id_was_never_learned_is_found_in_the_thread(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    fake.lose_answer_of_next(POST, times=100)

    def begin(stage: Stage) -> None:
        stage.discord.port.threads.by_default = True
        place.alice.says(place.channel, "hm", mentions=[fake.bot])

    def is_shown(stage: Stage) -> bool:
        return any(thread.by(fake.bot) for thread in place.channel.threads)

    await run_until_killed(fake, store_path, begin, is_shown)
    fake.rest._plans.clear()
    fake.clock.turn(200.0)  # Discord has forgotten the nonce
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        (thread,) = place.channel.threads
        await stage.until(lambda: stage.texts(thread) == ["You said: hm"] and not stage.core.num_busy)
        assert stage.texts(thread) == ["You said: hm"]


async def test_what_was_said_in_a_thread_while_the_bot_was_away_is_answered(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first", threads=True) as stage:
        _, thread = await asks(stage, place.alice, place.channel, "one")
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.says(thread, "meanwhile")
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        await stage.answers(thread, 2)
        assert stage.texts(thread) == ["You said: one", "You said: meanwhile"]


async def test_an_archived_thread_wakes_and_goes_on(threaded: Stage, place: Place) -> None:
    asked, thread = await asks(threaded, place.alice, place.channel, "one")
    thread.is_archived = True
    threaded.fake.world.update_channel(thread)
    await threaded.until(lambda: threaded.discord.client.get_channel(thread.id) is None)
    await pause(JOIN_S)
    place.alice.says(thread, "two")
    await threaded.answers(thread, 2)
    assert threaded.texts(thread) == ["You said: one", "You said: two"]
    one, two = await threaded.turns()
    assert two.parent_id == one.question.turn_id
    assert place.channel.threads == [asked.thread]


async def test_an_answer_in_a_thread_that_is_archived_meanwhile_is_there_once(
    threaded: Stage, place: Place
) -> None:
    threaded.brain.answer = lambda prompt: STORY
    asked = place.alice.says(place.channel, "a story", mentions=[threaded.fake.bot])
    await threaded.until(lambda: asked.thread is not None and asked.thread.by(threaded.fake.bot))
    thread = asked.thread
    assert thread is not None
    thread.is_archived = True
    threaded.fake.world.update_channel(thread)
    await threaded.quiet()
    await threaded.until(lambda: threaded.texts(thread) == [STORY.strip()])
    assert len(await settled(threaded)) == 1


async def test_who_deletes_the_question_deletes_the_answer_in_its_thread(
    threaded: Stage, place: Place
) -> None:
    asked, thread = await asks(threaded, place.alice, place.channel, "a private question")
    place.alice.deletes(asked)
    await threaded.until(lambda: not thread.by(threaded.fake.bot))
    await threaded.quiet()
    assert await threaded.num_turns() == 0


async def test_the_channel_is_told_once_who_can_read_along_whatever_threads_it_has(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    rules = replace(RULES, place_notice="Volunteers can read this.")
    async with open_stage(fake, store_path, rules=rules, threads=True) as stage:
        _, thread = await asks(stage, place.alice, place.channel, "one")
        await pause(JOIN_S)
        place.alice.says(thread, "more")
        await stage.answers(thread, 2)
        _, other = await asks(stage, place.bob, place.channel, "two")
        assert stage.texts(place.channel) == ["Volunteers can read this."]
        assert len(stage.texts(thread)) == 2
        assert len(stage.texts(other)) == 1


async def test_what_stands_in_a_thread_of_another_is_below_nothing(threaded: Stage, place: Place) -> None:
    _, thread = await asks(threaded, place.alice, place.channel, "one")
    here = Where("discord", str(thread.id), "thread")
    found = await threaded.discord.port.find(here, str(thread.id + 1), ["k" * 25])
    assert found == {}


async def test_a_question_that_waits_has_its_clock_in_the_channel(threaded: Stage, place: Place) -> None:
    threaded.brain.answer = lambda prompt: "word " * 80
    place.alice.says(place.channel, "one", mentions=[threaded.fake.bot])
    await threaded.until(lambda: place.channel.threads)
    second = place.alice.says(place.channel, "two", mentions=[threaded.fake.bot])
    await threaded.until(lambda: CLOCK in second.reactions)
    await threaded.quiet()
    assert second.reactions == {}
