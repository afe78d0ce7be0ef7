"""What was missed and could not be read at once: it is tried again, and nothing overtakes it for good."""

from pathlib import Path

import pytest

from bot.on_discord import trying
from bot.on_discord.places import MARKER, Places
from storage.inbox import get_marker
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import JOIN_S, Stage, open_stage, pause
from tests.discord_peer import FakeDiscord

HISTORY = "GET /channels/{channel_id}/messages"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other quickly."""
    monkeypatch.setattr(trying, "RETRY_S", (0.3,))


async def asked_and_away(fake: FakeDiscord, place: Place, path: Path) -> None:
    """Somebody has talked to the bot, which has gone since; then they ask again."""
    async with open_stage(fake, path, boot="first") as stage:
        place.alice.says(place.channel, "before", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
    await fake.until(lambda: not fake.gateway.connected)
    place.alice.says(place.channel, "meanwhile", mentions=[fake.bot])
    await pause(JOIN_S)


async def newest_known(stage: Stage, place: Place) -> int:
    return Places(await stage.store.read(get_marker, "discord", MARKER)).active(0)[place.channel.id]


@pytest.mark.parametrize("why", ["trouble", "too many requests"])
async def test_what_cannot_be_read_at_once_is_read_later_whatever_is_said_meanwhile(
    fake: FakeDiscord, place: Place, store_path: Path, why: str
) -> None:
    await asked_and_away(fake, place, store_path)
    if why == "trouble":
        fake.fail_next(HISTORY, 503, times=3)
    else:
        fake.limit_next(HISTORY, 45.0)
    async with open_stage(fake, store_path, boot="second") as stage:
        if why == "too many requests":
            await stage.until(lambda: 429 in [call.status for call in fake.calls(HISTORY)])
            stage.discord.client.http._buckets.clear()  # its time is over
        place.bob.says(place.channel, "and now", mentions=[fake.bot])
        await stage.answers(place.channel, 3)
        assert set(stage.texts(place.channel)) == {
            "You said: before",
            "You said: meanwhile",
            "You said: and now",
        }


async def test_who_stops_before_it_was_read_reads_it_after_the_next_start(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    await asked_and_away(fake, place, store_path)
    fake.fail_next(HISTORY, 503, times=1000)
    async with open_stage(fake, store_path, boot="second") as stage:
        before = await newest_known(stage, place)
        said = place.bob.says(place.channel, "and now", mentions=[fake.bot])
        await stage.answers(place.channel, 2)
        assert await newest_known(stage, place) == before
    fake.rest._plans.clear()
    async with open_stage(fake, store_path, boot="third") as stage:
        await stage.answers(place.channel, 3)
        await stage.quiet()
        assert sorted(stage.texts(place.channel)) == [
            "You said: and now",
            "You said: before",
            "You said: meanwhile",
        ]
        place.bob.says(place.channel, "again", mentions=[fake.bot])
        await stage.answers(place.channel, 4)
        assert await newest_known(stage, place) > said.id


async def test_a_place_that_is_closed_to_the_bot_is_not_tried_for_ever(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    await asked_and_away(fake, place, store_path)
    fake.fail_next(HISTORY, 403, times=1000, code=50001)
    async with open_stage(fake, store_path, boot="second") as stage:
        await stage.until(lambda: fake.calls(HISTORY))
        await pause(1.0)
        assert len([call for call in fake.calls(HISTORY) if call.status == 403]) == 1
