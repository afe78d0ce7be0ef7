"""Rate limits as discord.py meets them, and troubles that a test arranges."""

import asyncio
import time

import aiohttp
import discord
import pytest

from tests.discord_peer import FakeDiscord, Limit
from tests.discord_peer.clock import TurnableClock
from tests.discord_peer.conftest import Bot, fake_discord, logged_in
from tests.discord_peer.limits import LIMITS, Buckets
from tests.discord_peer.refusals import TooManyRequests
from tests.discord_peer.rest import ROUTES, Plan

CREATE = "POST /channels/{channel_id}/messages"
EDIT = "PATCH /channels/{channel_id}/messages/{message_id}"
IN_CHANNEL = {"channel_id": "1"}


def buckets(clock: TurnableClock, everything: Limit = Limit(50, 1.0)) -> Buckets:  # noqa: B008 - frozen
    return Buckets(clock, {}, everything)


def test_a_channel_takes_five_messages_in_five_seconds_and_as_many_edits() -> None:
    clock = TurnableClock()
    limited = buckets(clock)
    left = [limited.take(CREATE, IN_CHANNEL)["X-RateLimit-Remaining"] for _ in range(5)]
    assert left == ["4", "3", "2", "1", "0"]
    with pytest.raises(TooManyRequests) as refused:
        limited.take(CREATE, IN_CHANNEL)
    assert 4 < refused.value.body["retry_after"] <= 5
    assert refused.value.headers["X-RateLimit-Remaining"] == "0"
    assert refused.value.headers["Via"]
    assert limited.take(CREATE, {"channel_id": "2"})["X-RateLimit-Remaining"] == "4"
    assert limited.take(EDIT, IN_CHANNEL)["X-RateLimit-Remaining"] == "4"
    clock.turn(5.0)
    assert limited.take(CREATE, IN_CHANNEL)["X-RateLimit-Remaining"] == "4"


def test_everything_together_has_a_limit_too() -> None:
    limited = buckets(TurnableClock(), Limit(2, 1.0))
    limited.take(CREATE, {"channel_id": "1"})
    limited.take(CREATE, {"channel_id": "2"})
    with pytest.raises(TooManyRequests) as refused:
        limited.take(CREATE, {"channel_id": "3"})
    assert refused.value.body["global"] is True
    assert refused.value.headers["X-RateLimit-Scope"] == "global"


def test_every_limited_route_is_one_that_the_fake_has() -> None:
    assert set(LIMITS) <= set(ROUTES)


async def test_the_library_waits_by_the_headers_and_meets_no_429() -> None:
    async with fake_discord(limits={CREATE: Limit(3, 0.3)}) as fake, logged_in(fake) as bot:
        channel = fake.channel(fake.guild())
        begun_s = time.monotonic()
        for number in range(7):
            await bot.place(channel.id).send(str(number))
        assert time.monotonic() - begun_s > 0.5
        assert [message.content for message in channel.messages] == [str(number) for number in range(7)]
        assert {call.status for call in fake.calls(CREATE)} == {200}


async def test_two_clients_on_one_bucket_meet_429_and_both_get_through() -> None:
    async with fake_discord(limits={CREATE: Limit(3, 0.3)}) as fake:
        channel = fake.channel(fake.guild())
        async with logged_in(fake) as one, logged_in(fake) as two, asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one.place(channel.id).send(f"one {number}"))
                group.create_task(two.place(channel.id).send(f"two {number}"))
        assert len(channel.messages) == 6
        assert 429 in {call.status for call in fake.calls(CREATE)}


@pytest.mark.parametrize("is_global", [False, True])
async def test_a_429_on_an_edit_is_retried_and_shown_once(
    fake: FakeDiscord, bot: Bot, is_global: bool
) -> None:
    channel = fake.channel(fake.guild())
    sent = await bot.place(channel.id).send("a")
    fake.limit_next(EDIT, retry_after_s=0.1, times=2, is_global=is_global)
    begun_s = time.monotonic()
    await sent.edit(content="b")
    assert time.monotonic() - begun_s > 0.2
    assert channel.messages[0].contents == ["a", "b"]
    assert [call.status for call in fake.calls(EDIT)] == [429, 429, 200]


async def test_a_429_without_via_would_be_raised_at_once(fake: FakeDiscord, bot: Bot) -> None:
    """The header matters: this is what a client does with answers that lack it."""
    channel = fake.channel(fake.guild())
    refusal = TooManyRequests(0.1)
    del refusal.headers["Via"]
    fake.rest.plan(Plan(CREATE, 1, refusal))
    with pytest.raises(discord.HTTPException) as refused:
        await bot.place(channel.id).send("a")
    assert refused.value.status == 429


async def test_a_wait_that_is_too_long_for_the_client_is_raised(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    fake.limit_next(CREATE, retry_after_s=60.0)
    with pytest.raises(discord.RateLimited):
        await bot.place(channel.id).send("a")


async def test_an_arranged_failure_happens_as_often_as_it_was_asked_for(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    sent = await bot.place(channel.id).send("a")
    fake.fail_next(EDIT, 404, times=2, code=10008)
    for _ in range(2):
        with pytest.raises(discord.NotFound):
            await sent.edit(content="b")
    fake.fail_next(EDIT, 503)
    with pytest.raises(discord.DiscordServerError):
        await sent.edit(content="b")
    await sent.edit(content="c")
    assert channel.messages[0].contents == ["a", "c"]


async def test_an_answer_can_get_lost_after_the_deed(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    place = bot.place(channel.id)
    fake.lose_answer_of_next(CREATE)
    with pytest.raises(aiohttp.ClientError):
        await place.send("a", nonce="once")
    sent = await place.send("a", nonce="once")
    assert [message.id for message in channel.messages] == [sent.id]


async def test_a_plan_for_a_route_that_is_not_there_is_a_mistake(fake: FakeDiscord) -> None:
    with pytest.raises(ValueError, match="no route"):
        fake.fail_next("POST /messages", 500)


async def test_a_body_that_makes_no_sense_is_refused_and_reported(fake: FakeDiscord) -> None:
    channel = fake.channel(fake.guild())
    url = f"{fake.api_url}/channels/{channel.id}/messages"
    headers = {"Authorization": f"Bot {fake.token}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, data="{") as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 50109)
        async with session.post(
            url, json={"content": "a", "message_reference": {"message_id": "x"}}
        ) as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, 50035)
        async with session.get(f"{fake.api_url}/nowhere") as answer:
            assert answer.status == 404
    assert any("cannot read this" in finding for finding in fake.findings)
    assert fake.findings.pop() == "the fake has no GET /api/v10/nowhere"
    fake.findings.clear()


async def test_a_request_can_be_slow(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    fake.delay_next(CREATE, 0.1)
    begun_s = time.monotonic()
    await bot.place(channel.id).send("a")
    assert time.monotonic() - begun_s >= 0.1
