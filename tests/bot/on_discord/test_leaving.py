"""Channels and threads that are deleted while the bot uses them."""

from pathlib import Path

import pytest

from bot.on_discord.places import MARKER, Places, thread_marker
from storage.inbox import get_marker
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import EDIT, POST, Stage, open_stage
from tests.bot.on_discord.test_restarts import STORY, settled
from tests.discord_peer import Channel, FakeDiscord

HISTORY = "GET /channels/{channel_id}/messages"
CHANNEL = "GET /channels/{channel_id}"


async def known_places(stage: Stage) -> set[int]:
    return set(Places(await stage.store.read(get_marker, "discord", MARKER)).active(0))


async def gone(stage: Stage, channel: Channel) -> None:
    stage.fake.world.delete_channel(channel)
    await stage.until(lambda: stage.discord.client.get_channel(channel.id) is None)


@pytest.mark.parametrize("kind", ["channel", "thread", "channel of the thread"])
async def test_an_answer_in_a_place_that_is_deleted_ends_and_is_settled(
    stage: Stage, place: Place, kind: str
) -> None:
    stage.brain.answer = lambda prompt: STORY * 4
    channel = place.channel if kind == "channel" else place.alice.starts_thread(place.channel, "theirs")
    place.alice.says(channel, "a story", mentions=[stage.fake.bot])
    await stage.until(lambda: channel.by(stage.fake.bot))
    before = len(stage.fake.calls(POST)) + len(stage.fake.calls(EDIT))
    await gone(stage, place.channel if kind == "channel of the thread" else channel)
    await stage.quiet(5.0)
    (said,) = await stage.turns()
    assert said.state == "stopped"
    assert len(said.progress.answer) < len(STORY) * 4
    assert len(await settled(stage)) == 1
    assert len(stage.fake.calls(POST)) + len(stage.fake.calls(EDIT)) <= before + 5
    assert await known_places(stage) == set()
    assert await stage.store.read(get_marker, "discord", thread_marker(channel.id)) is None
    place.bob.says(place.bob.direct, "and here?")
    await stage.until(lambda: stage.texts(place.bob.direct))


@pytest.mark.parametrize("kind", ["channel", "thread"])
async def test_an_answer_on_a_server_that_the_bot_is_taken_off_ends_and_is_settled(
    stage: Stage, place: Place, kind: str
) -> None:
    stage.brain.answer = lambda prompt: STORY * 4
    channel = place.channel if kind == "channel" else place.alice.starts_thread(place.channel, "theirs")
    place.alice.says(channel, "a story", mentions=[stage.fake.bot])
    await stage.until(lambda: channel.by(stage.fake.bot))
    before = len(stage.fake.calls(POST)) + len(stage.fake.calls(EDIT))
    stage.fake.remove_bot(place.guild)
    await stage.quiet(5.0)
    (said,) = await stage.turns()
    assert said.state == "stopped"
    assert len(said.progress.answer) < len(STORY) * 4
    assert len(stage.fake.calls(POST)) + len(stage.fake.calls(EDIT)) <= before + 5
    assert await known_places(stage) == set()
    place.bob.says(place.bob.direct, "and here?")
    await stage.until(lambda: stage.texts(place.bob.direct))
    assert await known_places(stage) == {place.bob.direct.id}


async def test_the_pacer_of_a_place_goes_with_it(stage: Stage, place: Place) -> None:
    place.alice.says(place.channel, "hm", mentions=[stage.fake.bot])
    await stage.answers(place.channel, 1)
    pacers = stage.discord.port._pacers
    before = pacers.of(str(place.channel.id))
    assert pacers.of(str(place.channel.id)) is before
    await gone(stage, place.channel)
    await stage.until(lambda: pacers.of(str(place.channel.id)) is not before)


async def test_what_was_deleted_while_the_bot_was_away_is_looked_for_once(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async with open_stage(fake, store_path, boot="first") as stage:
        place.alice.says(place.channel, "hm", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
        assert await known_places(stage) == {place.channel.id}
    await fake.until(lambda: not fake.gateway.connected)
    fake.world.delete_channel(place.channel)
    for boot in ("second", "third"):
        async with open_stage(fake, store_path, boot=boot) as stage:
            await stage.until(lambda: fake.calls(CHANNEL))
            place.bob.says(place.bob.direct, boot)
            await stage.until(lambda boot=boot: f"You said: {boot}" in stage.texts(place.bob.direct))  # type: ignore[misc]
            await stage.quiet()
            assert await known_places(stage) == {place.bob.direct.id}
    assert len([call for call in fake.calls(CHANNEL) if call.status == 404]) == 1
    assert [call for call in fake.calls(HISTORY) if call.status == 404] == []
