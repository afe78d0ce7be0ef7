"""Messages that are deleted on Discord while the bot is away, or while its store cannot be written."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.on_discord.deletions import MOST_WAITING, Deletions
from storage.database import open_database
from storage.inbox import Event
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import RULES, Stage, open_stage, pause
from tests.bot.on_discord.test_deletions import SECRET, asks, no_answers, on_disk
from tests.bot.on_discord.test_threads import asks as asks_in_thread
from tests.discord_peer import FakeDiscord, Permission
from tests.storage.read_only import read_only

PAGE = "GET /channels/{channel_id}/messages"
ONE = "GET /channels/{channel_id}/messages/{message_id}"


async def prompts(stage: Stage) -> list[str]:
    return [said.question.prompt for said in await stage.turns()]


async def has_looked(stage: Stage, num_pages: int) -> None:
    """Wait until so many pages have been read since the fake began, and all that was found is dealt with."""
    await stage.until(lambda: len(stage.fake.calls(PAGE)) >= num_pages)
    await pause(0.1)
    await stage.quiet()


async def test_who_deletes_a_question_while_the_bot_is_away_deletes_its_answer_and_no_others(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        place.bob.says(place.channel, "not for the bot")
        asked = asks(stage, place)
        place.bob.says(place.channel, "another question", mentions=[fake.bot])
        await stage.answers(place.channel, 2)
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.deletes(asked)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: stage.texts(place.channel) == ["You said: another question"])
        await stage.quiet()
        assert await prompts(stage) == ["another question"]
        assert SECRET.encode() not in on_disk(stage)
    assert fake.calls(ONE) == [], "the page shows it: it is missing between two others"


async def test_a_question_before_or_after_all_that_is_there_is_asked_for(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        asked = place.alice.says(place.alice.direct, SECRET)
        await stage.answers(place.alice.direct, 1)
        other = asks(stage, place)
        (answer,) = await stage.answers(place.channel, 1)
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.deletes(asked)
    place.moderator.purges(place.channel, [other, answer])
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: not place.alice.direct.by(fake.bot))
        await stage.until(lambda: [call.status for call in fake.calls(ONE)] == [404, 404])
        while await prompts(stage):  # the answers are gone already, so nothing else shows when it is done
            await pause(0.01)
        await no_answers(stage, place)
        assert SECRET.encode() not in on_disk(stage)
    assert [call.status for call in fake.calls(ONE)] == [404, 404]


async def test_what_is_there_costs_one_page_for_each_place_and_stays(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        asks(stage, place)
        place.bob.runs("ask", {"text": "a command"}, channel=place.channel)
        place.bob.says(place.bob.direct, "in private")
        await stage.answers(place.channel, 3)
        await stage.answers(place.bob.direct, 1)
        (answer,) = (it for it in place.channel.by(fake.bot) if it.content == f"You said: {SECRET}")
        place.alice.presses(answer, "Retry")
        await stage.answers(place.channel, 4)
    num_pages = len(fake.calls(PAGE))
    async with open_stage(fake, store_path, boot="second") as stage:
        await has_looked(stage, num_pages + 4)
        assert len(await prompts(stage)) == 4
    assert len(fake.calls(PAGE)) == num_pages + 4, "one to read on, one to look for what is gone"
    assert fake.calls(ONE) == []


async def test_where_the_bot_may_not_read_nothing_counts_as_deleted(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        asks(stage, place)
        await stage.answers(place.channel, 1)
    place.channel.deny(place.guild.everyone, Permission.READ_MESSAGE_HISTORY)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: [call.status for call in fake.calls(ONE)] == [403])
        await has_looked(stage, 0)
        assert await prompts(stage) == [SECRET]
        assert stage.texts(place.channel) == [f"You said: {SECRET}"]


async def test_what_is_further_back_than_a_page_is_left_alone(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        asked = asks(stage, place)
        await stage.answers(place.channel, 1)
        for number in range(100):
            place.bob.says(place.channel, f"talk {number}")
    num_pages = len(fake.calls(PAGE))
    place.alice.deletes(asked)
    async with open_stage(fake, store_path, boot="second") as stage:
        await has_looked(stage, num_pages + 2)
        assert await prompts(stage) == [SECRET]
    assert fake.calls(ONE) == []


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_the_question_that_a_thread_was_made_of_is_looked_for_in_the_channel_around_it(
    fake: FakeDiscord, place: Place, store_path: Path, is_deleted: bool
) -> None:
    async with open_stage(fake, store_path, boot="first", threads=True) as stage:
        asked, thread = await asks_in_thread(stage, place.alice, place.channel, SECRET)
    await fake.until(lambda: not fake.gateway.connected)
    if is_deleted:
        place.alice.deletes(asked)
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        await stage.until(lambda: len(fake.calls(ONE)) == 2)
        await has_looked(stage, 0)
        assert await prompts(stage) == ([] if is_deleted else [SECRET])
        assert len(stage.texts(thread)) == (not is_deleted)


async def test_a_message_that_was_joined_and_is_deleted_meanwhile_takes_the_question_away(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first", token_s=0.2) as stage:
        place.alice.says(place.alice.direct, "one")
        joined = place.alice.says(place.alice.direct, SECRET)
        await stage.until(lambda: stage.brain.requests)
        stage.brain.token_s = 0.001
        await stage.answers(place.alice.direct, 1)
        assert await prompts(stage) == [f"one\n{SECRET}"]
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.deletes(joined)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: not place.alice.direct.by(fake.bot))
        await stage.quiet()
        assert await prompts(stage) == []


async def test_a_question_that_waits_for_consent_and_is_deleted_meanwhile_waits_no_more(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    asking = replace(RULES, consent_notice="Servers of others read along.")
    async with open_stage(fake, store_path, boot="first", rules=asking) as stage:
        asked = place.alice.says(place.alice.direct, SECRET)
        await stage.until(lambda: place.alice.direct.by(fake.bot))
        await stage.quiet()
        assert SECRET.encode() in on_disk(stage)
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.deletes(asked)
    async with open_stage(fake, store_path, boot="second", rules=asking) as stage:
        await stage.until(lambda: SECRET.encode() not in on_disk(stage))


async def test_what_is_deleted_while_the_store_cannot_be_written_goes_once_it_can(
    stage: Stage, place: Place
) -> None:
    deletions = stage.discord.hearing.deletions
    deletions.again_s = 0.05
    asked = asks(stage, place)
    await stage.answers(place.channel, 1)
    async with read_only(stage.store):
        place.alice.deletes(asked)
        await stage.until(lambda: deletions.num_waiting)
        await pause(0.2)
        assert await prompts(stage) == [SECRET]
        assert deletions.num_waiting == 1
    await no_answers(stage, place)
    assert await prompts(stage) == []
    assert SECRET.encode() not in on_disk(stage)
    await stage.until(lambda: not deletions.num_waiting)


async def test_what_could_not_be_kept_before_the_bot_ended_is_found_by_the_next_one(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        asked = asks(stage, place)
        await stage.answers(place.channel, 1)
        async with read_only(stage.store):
            place.alice.deletes(asked)
            await stage.until(lambda: stage.discord.hearing.deletions.num_waiting)
    async with open_stage(fake, store_path, boot="second") as stage:
        await no_answers(stage, place)
        assert await prompts(stage) == []


async def test_no_more_deletions_wait_than_there_is_room_for_and_the_newest_do(store_path: Path) -> None:
    async def receive(events: Sequence[Event]) -> None:
        pytest.fail("the store is closed")

    async with open_database(store_path) as store:
        deletions = Deletions(store, receive)
    await deletions.give([(1, number) for number in range(MOST_WAITING + 5)])
    assert deletions.num_waiting == MOST_WAITING
