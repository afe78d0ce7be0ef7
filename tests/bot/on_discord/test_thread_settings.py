"""Moderators decide for their channel whether conversations there get threads."""

from pathlib import Path

from storage.conversations import find_place
from storage.database import Transaction
from storage.settings import settings_of
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import Stage, open_stage
from tests.bot.on_discord.test_threads import asks
from tests.discord_peer import Channel, FakeDiscord, Person


async def test_a_moderator_decides_for_a_channel_whether_it_has_threads(stage: Stage, place: Place) -> None:
    told = await sets(stage, place.alice, place.channel, "threads", "on", "channel")
    assert told == "Only moderators may set that for all."
    told = await sets(stage, place.moderator, place.channel, "threads", "on", "channel")
    assert told == "threads is on now, for this channel."
    await sets(stage, place.moderator, place.channel, "temperature", "0.3", "channel")
    _, thread = await asks(stage, place.alice, place.channel, "one")
    assert await stage.store.read(_temperature, str(thread.id)) == 0.3
    await sets(stage, place.moderator, place.channel, "threads", "off", "channel")
    place.alice.says(place.channel, "two", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 1)
    assert place.channel.threads == [thread]


async def test_what_a_channel_has_set_holds_after_a_restart_and_before_the_configuration(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first", threads=True) as stage:
        await sets(stage, place.moderator, place.channel, "threads", "off", "channel")
    async with open_stage(fake, store_path, boot="second", threads=True) as stage:
        place.alice.says(place.channel, "one", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
        assert place.channel.threads == []


async def test_threads_are_set_for_a_whole_channel_and_for_nothing_else(stage: Stage, place: Place) -> None:
    told = await sets(stage, place.moderator, place.channel, "threads", "on")
    assert told == "threads holds for a whole channel: `settings set threads on channel`."
    told = await sets(stage, place.alice, place.alice.direct, "threads", "on", "channel")
    assert told == "threads is for channels and rooms; here there are only the two of us."


async def sets(stage: Stage, person: Person, channel: Channel, name: str, value: str, scope: str = "") -> str:
    """Somebody changes a setting; returns what they are told."""
    given = {"name": name, "value": value} | ({"scope": scope} if scope else {})
    asked = person.runs("settings set", given, channel=channel)
    await stage.until(lambda: asked.messages and not asked.is_pending)
    return asked.messages[-1].content


def _temperature(connection: Transaction, thread_id: str) -> object:
    place_id = find_place(connection, "discord", thread_id)
    assert place_id is not None
    return settings_of(connection, "place", place_id).get("temperature")
