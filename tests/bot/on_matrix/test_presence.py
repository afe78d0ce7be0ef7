"""What people see below the bot's name on Matrix."""

import asyncio
from typing import Any

from bot.on_matrix.presence import EVERY_S, show_presence_forever
from bot.rendering.presence import READY, SLOW
from bot.words import Refused, SendError, Unreachable
from swarm.background import running
from swarm.errors import SwarmTimeout
from tests.bot.clock import FakeClock
from tests.bot.on_matrix.world import Bot, meet
from tests.bot.surveys import THREE, FakeSurveys, survey
from tests.matrix_peer.human import Human

pytest_plugins = ("tests.matrix_peer.fixtures",)

NEEDS_SERVERS = "needs servers: !contribute"


class Homeserver:
    """Is told how the bot is, and refuses it as told."""

    user_id = "@murmur:localhost"

    def __init__(self) -> None:
        self.wire = self
        self.is_ready = asyncio.Event()
        self.asked: list[str] = []
        self.failures: list[SendError] = []

    async def ask(self, method: str, path: str, body: dict[str, Any]) -> None:
        assert (method, path) == ("PUT", "/presence/%40murmur%3Alocalhost/status")
        assert body["presence"] == "online"
        self.asked.append(body["status_msg"])
        if self.failures:
            raise self.failures.pop(0)


async def test_it_is_shown_when_it_changes_and_once_a_minute_at_most() -> None:
    clock, homeserver, swarm = FakeClock(), Homeserver(), FakeSurveys()
    async with running(show_presence_forever(homeserver, swarm.survey, "!", clock)):  # type: ignore[arg-type]
        await clock.advance(EVERY_S)
        assert homeserver.asked == []
        homeserver.is_ready.set()
        await clock.advance(2 * EVERY_S)
        assert homeserver.asked == [READY]
        swarm.swarm = survey(*THREE[:2])
        await clock.advance(EVERY_S / 2)
        assert homeserver.asked == [READY]
        await clock.advance(EVERY_S)
        assert homeserver.asked == [READY, NEEDS_SERVERS]
        swarm.survey_error = SwarmTimeout("nobody says")
        await clock.advance(EVERY_S)
        swarm.survey_error, swarm.swarm = None, survey(*THREE, tokens_per_s=0.5)
        await clock.advance(EVERY_S)
        assert homeserver.asked == [READY, NEEDS_SERVERS, SLOW]


async def test_a_homeserver_that_shows_no_presence_is_not_asked_again_and_one_that_is_gone_is() -> None:
    clock, homeserver, swarm = FakeClock(), Homeserver(), FakeSurveys()
    homeserver.is_ready.set()
    homeserver.failures = [Unreachable("it went dead"), Refused("there is no presence here")]
    async with running(show_presence_forever(homeserver, swarm.survey, "!", clock)):  # type: ignore[arg-type]
        await clock.advance(5 * EVERY_S)
        assert homeserver.asked == [READY, READY]


async def test_a_bot_that_reads_shows_it_to_people(bot: Bot, anna: Human) -> None:
    await meet(anna, bot)

    async def seen() -> str:
        return str((await anna._ask(anna.client.get_presence(bot.user_id))).status_msg)

    async with asyncio.timeout(10):
        while await seen() != READY:  # noqa: ASYNC110 - the homeserver tells nobody
            await asyncio.sleep(0.1)
