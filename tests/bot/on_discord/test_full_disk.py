"""The disk is full while the bot runs: nothing that is said then is lost."""

import asyncio
from pathlib import Path

import pytest

from storage.errors import StoreUnusable
from storage.inbox import Event, receive
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import Stage, open_stage
from tests.discord_peer import FakeDiscord
from tests.storage.full_disk import fill_disk


async def fill_inbox(stage: Stage) -> None:
    """Use up what room there is within the inbox."""

    async def fill(num_bytes: int) -> None:
        for number in range(1000):
            filler = Event(f"filler {num_bytes} {number}", "nobody", b"x" * num_bytes)
            await stage.store.write(receive, "nowhere", [filler], 0)

    for num_bytes in (1000, 100, 1):
        with pytest.raises(StoreUnusable):
            await fill(num_bytes)


async def test_what_is_said_when_the_disk_is_full_ends_the_bot_and_is_answered_once_there_is_room(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    async def say_more() -> None:
        async with open_stage(fake, store_path) as stage:
            place.alice.says(place.channel, "one", mentions=[fake.bot])
            await stage.answers(place.channel, 1)
            await fill_disk(stage.store)
            await fill_inbox(stage)
            place.alice.says(place.channel, "two", mentions=[fake.bot])
            await asyncio.sleep(10)

    with pytest.raises(StoreUnusable, match="the disk is full: free some space"):
        await say_more()
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.says(place.channel, "three", mentions=[fake.bot])
    async with open_stage(fake, store_path, boot="with room") as stage:
        await stage.until(lambda: len(place.channel.by(fake.bot)) > 1)
        await stage.quiet()
        assert " ".join(stage.texts(place.channel)).replace("You said: ", "").split() == [
            "one",
            "two",
            "three",
        ]
