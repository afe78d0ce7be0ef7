"""What people see below the bot's name."""

import asyncio
from pathlib import Path

import pytest

from bot.on_discord.presence import EVERY_S, show_presence_forever
from bot.rendering.presence import NEEDS_SERVERS, READY, SLOW
from bot.survey import Survey
from swarm.background import running
from swarm.errors import SwarmTimeout
from tests.bot.clock import FakeClock
from tests.bot.on_discord.stage import Stage, open_stage
from tests.bot.surveys import THREE, survey
from tests.discord_peer import FakeDiscord


def shown_by(stage: Stage) -> list[str]:
    """All that was shown so far."""
    return [each["activities"][0]["state"] for each in stage.fake.gateway.presences]


async def minute_passes(clock: FakeClock) -> None:
    """Time goes by, and what waited for it is done."""
    await clock.advance(EVERY_S)
    await asyncio.sleep(0.05)


async def test_it_is_shown_when_it_changes_and_once_a_minute_at_most(stage: Stage) -> None:
    clock, looks = FakeClock(), 0

    async def look() -> Survey:
        nonlocal looks
        looks += 1
        return await stage.brain.survey()

    async with running(show_presence_forever(lambda: stage.discord.client, look, clock)):
        await stage.until(lambda: shown_by(stage) == [READY])
        await minute_passes(clock)
        assert shown_by(stage) == [READY]
        stage.brain.swarm = survey(*THREE[:2])
        await clock.advance(EVERY_S / 2)
        await asyncio.sleep(0.05)
        assert (shown_by(stage), looks) == ([READY], 2)
        await minute_passes(clock)
        await stage.until(lambda: shown_by(stage) == [READY, NEEDS_SERVERS.format("/")])
        stage.brain.survey_error = SwarmTimeout("nobody says")
        await minute_passes(clock)
        stage.brain.survey_error = None
        stage.brain.swarm = survey(*THREE, tokens_per_s=0.5)
        await minute_passes(clock)
        await stage.until(lambda: shown_by(stage) == [READY, NEEDS_SERVERS.format("/"), SLOW])


@pytest.mark.slow
async def test_a_bot_that_listens_shows_it(fake: FakeDiscord, store_path: Path) -> None:
    async with open_stage(fake, store_path, shows_presence=True) as stage:
        await stage.until(lambda: shown_by(stage))
        assert shown_by(stage) == [READY]
        activity = stage.discord.client.activity
        assert activity is not None
        assert activity.name == READY
