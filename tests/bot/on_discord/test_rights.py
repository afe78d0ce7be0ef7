"""Where the bot may not write: nothing is computed that cannot be shown, and people are told why."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import POST, Stage, open_stage
from tests.discord_peer import Channel, FakeDiscord, Permission, Person

SENDS, VIEWS = Permission.SEND_MESSAGES, Permission.VIEW_CHANNEL


@pytest_asyncio.fixture
async def shut(fake: FakeDiscord, place: Place, store_path: Path) -> AsyncIterator[Stage]:
    """The bot may read the channel, and not write there."""
    place.channel.deny(fake.bot, SENDS)
    async with open_stage(fake, store_path) as running:
        yield running


async def private_answer(stage: Stage, person: Person, channel: Channel, command: str = "ask") -> str:
    """What somebody is told alone when they give a command; nobody else sees anything."""
    options = {"text": "why?"} if command == "ask" else {}
    num_private, num_shown = len(person.private), len(channel.messages)
    asked = person.runs(command, options, channel=channel)
    await stage.until(lambda: asked.messages and not asked.is_pending)
    (told,) = person.private[num_private:]
    assert len(channel.messages) == num_shown
    return told.content


async def nothing_is_computed(stage: Stage) -> None:
    await stage.quiet()
    assert stage.brain.requests == []
    assert await stage.num_turns() == 0


@pytest.mark.parametrize("command", ["ask", "retry", "continue"])
async def test_who_gives_a_command_where_the_bot_may_not_write_is_told_so_and_by_whom_it_is_mended(
    shut: Stage, place: Place, command: str
) -> None:
    told = await private_answer(shut, place.alice, place.channel, command)
    assert told == "I may not write here: a moderator can give me Send Messages."
    await nothing_is_computed(shut)


async def test_what_needs_no_message_of_ours_is_done_there_as_ever(shut: Stage, place: Place) -> None:
    assert "credits" in await private_answer(shut, place.alice, place.channel, "quota")


async def test_a_channel_that_the_bot_does_not_see_is_told_before_the_question_is_shown(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    place.channel.deny(fake.bot, VIEWS)
    async with open_stage(fake, store_path) as stage:
        told = await private_answer(stage, place.alice, place.channel)
        assert told == "I may not write here: a moderator can give me View Channel."
        await nothing_is_computed(stage)


async def test_a_thread_has_a_right_of_its_own_and_may_be_locked(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    place.channel.deny(fake.bot, SENDS)
    async with open_stage(fake, store_path) as stage:
        thread = place.bob.starts_thread(place.channel, "theirs")
        place.alice.says(thread, "one", mentions=[fake.bot])
        await stage.answers(thread, 1)
        thread.is_locked = True
        fake.world.update_channel(thread)
        told = await private_answer(stage, place.alice, thread)
        assert told == "I may not write here: the thread is locked."
        place.alice.says(thread, "two", mentions=[fake.bot])
        await stage.until(lambda: stage.texts(place.alice.direct))
        assert stage.texts(place.alice.direct) == [
            f"I may not write in <#{thread.id}>: the thread is locked."
        ]
        await stage.quiet()
        assert await stage.num_turns() == 1


async def test_who_mentions_the_bot_there_is_told_in_a_direct_message_and_only_the_first_in_an_hour(
    shut: Stage, place: Place
) -> None:
    for person in (place.alice, place.bob, place.alice):
        person.says(place.channel, "hello", mentions=[shut.fake.bot])
    place.moderator.says(place.moderator.direct, "a witness")
    await shut.answers(place.moderator.direct, 1)
    await shut.until(lambda: shut.texts(place.alice.direct))
    assert shut.texts(place.alice.direct) == [
        f"I may not write in <#{place.channel.id}>: a moderator can give me Send Messages."
    ]
    assert shut.texts(place.bob.direct) == []
    assert shut.texts(place.channel) == []
    assert await shut.num_turns() == 1, "that of the witness"


async def test_who_takes_no_direct_messages_is_told_nothing_and_nothing_is_computed(
    shut: Stage, place: Place
) -> None:
    place.alice.takes_direct_messages = False
    place.alice.says(place.channel, "hello", mentions=[shut.fake.bot])
    await shut.until(lambda: [call.status for call in shut.fake.calls(POST)] == [403])
    await nothing_is_computed(shut)


async def test_once_it_may_write_it_answers(shut: Stage, place: Place) -> None:
    await private_answer(shut, place.alice, place.channel)
    place.channel.allow(shut.fake.bot, SENDS)
    shut.fake.world.update_channel(place.channel)
    place.alice.runs("ask", {"text": "why?"}, channel=place.channel)
    await shut.answers(place.channel, 2)
    place.bob.says(place.channel, "hello", mentions=[shut.fake.bot])
    assert (await shut.answers(place.channel, 3))[2].content == "You said: hello"


@pytest.mark.parametrize("how", ["mention", "command"])
async def test_where_only_threads_are_written_in_a_question_that_gets_one_is_answered_there(
    fake: FakeDiscord, place: Place, store_path: Path, how: str
) -> None:
    place.channel.deny(fake.bot, SENDS)
    async with open_stage(fake, store_path, threads=True) as stage:
        if how == "mention":
            place.alice.says(place.channel, "why?", mentions=[fake.bot])
        else:
            place.alice.runs("ask", {"text": "why?"}, channel=place.channel)
        await stage.until(lambda: place.channel.threads)
        (thread,) = place.channel.threads
        (answer,) = await stage.answers(thread, 1)
        assert answer.content == "You said: why?"
