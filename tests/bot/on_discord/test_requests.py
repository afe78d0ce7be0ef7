"""What one account sends to Discord: not too much, and never cut off where the library would fall silent."""

import asyncio

import pytest

from bot.clock import RealClock
from bot.on_discord.requests import AccountRate
from bot.words import Post, Where
from tests.bot.clock import FakeClock
from tests.bot.on_discord.conftest import Place
from tests.bot.on_discord.stage import EDIT, Stage


async def test_a_preview_that_is_cancelled_under_a_global_limit_does_not_silence_the_bot(
    stage: Stage, place: Place
) -> None:
    where = Where("discord", str(place.channel.id), "group")
    asked = place.alice.says(place.channel, "hm")
    port = stage.discord.port
    message_id = await port.post(where, str(asked.id), Post("a draft", "k1"))
    stage.fake.limit_next(EDIT, 0.3, is_global=True)
    preview = asyncio.create_task(port.edit(where, message_id, Post("a longer draft", "k1")))
    await stage.until(lambda: 429 in [call.status for call in stage.fake.calls(EDIT)])
    preview.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preview
    async with asyncio.timeout(5):
        await port.edit(where, message_id, Post("the end", "k1"))
    assert stage.texts(place.channel) == ["the end"]


async def test_of_one_account_no_more_leaves_in_a_second_than_it_may() -> None:
    clock = FakeClock()
    rate = AccountRate(clock, most=3)
    passed: list[float] = []

    async def pass_() -> None:
        await rate.wait()
        passed.append(clock.now_s())

    began_s = clock.now_s()
    async with asyncio.TaskGroup() as group:
        for _ in range(7):
            group.create_task(pass_())
        for _ in range(30):
            await asyncio.sleep(0)
            await clock.advance(0.1)
    assert [round(each - began_s) for each in passed] == [0, 0, 0, 1, 1, 1, 2]


async def test_the_line_goes_on_when_one_who_waits_is_cancelled() -> None:
    rate = AccountRate(RealClock(), most=1)
    await rate.wait()
    waiting = asyncio.create_task(rate.wait())
    await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(5):
        await rate.wait()
