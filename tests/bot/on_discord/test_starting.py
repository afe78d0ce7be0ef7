"""A bot that starts while Discord cannot be reached: it tries on, and nothing else waits for it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bot.clock import RealClock
from bot.on_discord.opening import WRONG_TOKEN, open_discord
from bot.on_discord.platform import open_platform
from bot.receiving.access import Access
from bot.words import Post, Unreachable, Where
from storage.database import open_database
from swarm.background import running
from swarm.errors import ConfigError
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import open_stage, settings_of
from tests.bot.world import KEY
from tests.discord_peer import FakeDiscord

ACCOUNT = "GET /users/@me"


async def test_behaviour_30_it_answers_once_discord_is_there(
    fake: FakeDiscord, place: Place, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.fail_next(ACCOUNT, 503, times=2)
    async with open_stage(fake, store_path) as stage:
        place.alice.says(place.channel, "hm", mentions=[fake.bot])
        await stage.answers(place.channel, 1)
        assert stage.texts(place.channel) == ["You said: hm"]
    assert [call.status for call in fake.calls(ACCOUNT)] == [503, 503, 200]
    (said,) = [each.getMessage() for each in caplog.records if "I try again" in each.getMessage()]
    assert said.startswith("Discord cannot be reached: Discord has trouble of its own (503)")


async def test_behaviour_30_until_then_other_platforms_go_on_and_nothing_is_sent(
    fake: FakeDiscord, place: Place, store_path: Path
) -> None:
    fake.fail_next(ACCOUNT, 503, times=100)
    core: Any = SimpleNamespace(commands=SimpleNamespace(brain=SimpleNamespace(survey=None)))
    where = Where("discord", str(place.channel.id), "group")
    clock = RealClock()
    async with (
        open_database(store_path) as store,
        open_platform(settings_of(fake), store, clock, Access(clock, (), KEY)) as (port, listen, vitals),
    ):
        assert vitals().trouble().startswith("is not connected yet")
        with pytest.raises(Unreachable):
            await port.post(where, "1", Post("hm", "k" * 25))
        async with running(listen(core)):
            await fake.until(lambda: len(fake.calls(ACCOUNT)) >= 3)
        assert not vitals().is_ready
    assert place.channel.messages == []


async def test_a_wrong_token_is_a_mistake_of_the_operator(fake: FakeDiscord, store_path: Path) -> None:
    wrong = settings_of(fake, token="wrong")
    async with open_database(store_path) as store:
        with pytest.raises(ConfigError, match="does not know this token"):
            async with open_discord(wrong, store, RealClock()):
                pytest.fail("it came in")


async def test_a_token_that_stops_being_good_ends_the_bot_with_a_sentence(
    fake: FakeDiscord, store_path: Path
) -> None:
    async def run() -> None:
        async with open_stage(fake, store_path):
            fake.world.token = "another"
            await fake.drop_gateway(resume=True)
            await asyncio.sleep(10)

    with pytest.raises(ConfigError, match="does not know this token"):
        await run()


async def test_a_token_that_turns_out_to_be_wrong_ends_the_bot_then_too(
    fake: FakeDiscord, store_path: Path
) -> None:
    fake.fail_next(ACCOUNT, 503)
    core: Any = None

    async def run() -> None:
        async with (
            open_database(store_path) as store,
            open_discord(settings_of(fake, token="wrong"), store, RealClock()) as account,
            account.listening(core),
        ):
            await asyncio.sleep(10)

    with pytest.raises(ConfigError) as told:
        await run()
    assert str(told.value) == WRONG_TOKEN
