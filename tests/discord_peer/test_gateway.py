"""Sessions: what is replayed and what is lost, which intents are granted, and bad tokens."""

import asyncio
import sys

import aiohttp
import discord
import pytest

from tests.discord_peer import PRIVILEGED, FakeDiscord, Intent, Permission
from tests.discord_peer.conftest import Bot, all_intents, fake_discord, logged_in


async def test_what_is_said_while_the_bot_is_cut_off_is_replayed_on_resume(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    with fake.gateway_held():
        await fake.drop_gateway(resume=True)
        alice.says(channel, "in the gap")
    await fake.until(lambda: "resumed" in bot.happened)
    await fake.until(lambda: bot.heard)
    alice.says(channel, "after it")
    await fake.until(lambda: len(bot.heard) == 2)
    assert [message.content for message in bot.heard] == ["in the gap", "after it"]
    assert (fake.gateway.identified, fake.gateway.resumed) == (1, 1)


async def test_a_fresh_session_hears_nothing_of_the_gap(fake: FakeDiscord, bot: Bot) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    with fake.gateway_held():
        await fake.drop_gateway(resume=False)
        alice.says(channel, "in the gap")
    await fake.until(lambda: bot.happened.count("ready") == 2)
    alice.says(channel, "after it")
    await fake.until(lambda: bot.heard)
    assert [message.content for message in bot.heard] == ["after it"]
    assert (fake.gateway.identified, fake.gateway.resumed) == (2, 0)
    place = bot.place(channel.id)
    assert [m.content async for m in place.history(limit=10)] == ["after it", "in the gap"]


async def test_a_request_to_reconnect_is_followed_by_a_resume(fake: FakeDiscord, bot: Bot) -> None:
    await fake.gateway.ask_to_reconnect()
    await fake.until(lambda: "resumed" in bot.happened)
    assert (fake.gateway.identified, fake.gateway.resumed) == (1, 1)


async def test_a_session_that_was_left_too_long_cannot_be_resumed(fake: FakeDiscord, bot: Bot) -> None:
    with fake.gateway_held():
        await fake.drop_gateway(resume=True)
        await fake.until(lambda: not fake.gateway.connected)
        fake.clock.turn(600.0)
    await fake.until(lambda: bot.happened.count("ready") == 2)
    assert (fake.gateway.identified, fake.gateway.resumed) == (2, 0)


@pytest.mark.parametrize(("code", "is_kept"), [(1000, False), (1001, False), (4000, True)])
async def test_a_goodbye_ends_a_session_and_any_other_end_does_not(
    fake: FakeDiscord, code: int, is_kept: bool
) -> None:
    async with aiohttp.ClientSession() as client, client.ws_connect(fake.gateway.url) as socket:
        await socket.send_json({"op": 2, "d": {"token": fake.token, "intents": 0}})
        await fake.until(lambda: fake.gateway.connected)
        (session,) = fake.gateway.connected
        await socket.close(code=code)
        await fake.until(lambda: not fake.gateway.connected)
        assert (fake.gateway.find(session.id, session.sequence) is session) is is_kept


async def test_a_bot_that_starts_again_begins_anew(fake: FakeDiscord) -> None:
    async with logged_in(fake):
        assert len(fake.gateway.connected) == 1
    await fake.until(lambda: not fake.gateway.connected)
    async with logged_in(fake):
        assert (fake.gateway.identified, fake.gateway.resumed) == (2, 0)


@pytest.mark.parametrize("asked", ["message_content", "members", "presences"])
async def test_an_intent_that_was_not_approved_closes_with_4014(asked: str) -> None:
    intents = discord.Intents.default()
    setattr(intents, asked, True)
    async with fake_discord(approved=Intent.NONE) as fake:
        with pytest.raises(discord.PrivilegedIntentsRequired):
            async with logged_in(fake, intents):
                pytest.fail("it came in")
        async with logged_in(fake, discord.Intents.default()) as bot:
            assert bot.is_ready()


async def test_words_are_blanked_without_the_message_content_intent() -> None:
    async with fake_discord(approved=PRIVILEGED & ~Intent.MESSAGE_CONTENT) as fake:
        guild = fake.guild()
        channel = fake.channel(guild)
        alice = fake.user("alice", guild)
        async with logged_in(fake, discord.Intents.default()) as bot:
            await bot.place(channel.id).send("mine")
            mine = channel.messages[-1]
            alice.says(channel, "for nobody", files={"a.txt": b"a"})
            alice.says(channel, "for you", mentions=[fake.bot])
            alice.says(channel, "an answer", reply_to=mine)
            alice.silently_replies(mine, "a quiet answer")
            alice.says(alice.direct, "in private")
            await fake.until(lambda: len(bot.heard) == 5)
            words = [message.content for message in bot.heard]
            assert words == ["", f"{fake.bot.mention} for you", "an answer", "", "in private"]
            assert bot.heard[0].attachments == []
            place = bot.place(channel.id)
            read = [m.content async for m in place.history(limit=10, oldest_first=True)]
            assert read == ["mine", "", f"{fake.bot.mention} for you", "an answer", ""]


async def test_kinds_of_events_that_were_not_asked_for_do_not_come(fake: FakeDiscord) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    intents = discord.Intents(guilds=True, dm_messages=True)
    async with logged_in(fake, intents) as bot:
        alice.says(channel, "in the guild", mentions=[fake.bot])
        alice.says(alice.direct, "in private")
        await fake.until(lambda: bot.heard)
        assert [message.content for message in bot.heard] == ["in private"]


async def test_a_bad_token_is_refused_by_login(fake: FakeDiscord) -> None:
    stranger = Bot(all_intents())
    with pytest.raises(discord.LoginFailure):
        await stranger.start("wrong")
    await stranger.close()


async def test_a_bad_token_closes_the_gateway_with_4004(fake: FakeDiscord) -> None:
    assert await close_code(fake, {"op": 2, "d": {"token": "wrong", "intents": 0}}) == 4004


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"op": 3, "d": {}}, 4003),
        ({"op": 2, "d": {"token": None, "intents": 1 << 60}}, 4013),
        ({"d": {}}, 4002),
        ({"op": 6, "d": {"token": "wrong", "session_id": "s", "seq": 1}}, 4004),
    ],
)
async def test_a_wrong_first_frame_is_refused(fake: FakeDiscord, frame: dict[str, object], code: int) -> None:
    data = frame["d"]
    assert isinstance(data, dict)
    if "token" in data and data["token"] is None:
        data["token"] = fake.token
    assert await close_code(fake, frame) == code


async def close_code(fake: FakeDiscord, frame: dict[str, object]) -> int | None:
    async with aiohttp.ClientSession() as session, session.ws_connect(fake.gateway.url) as socket:
        await socket.receive_json()
        await socket.send_json(frame)
        await socket.receive()
        return socket.close_code


async def test_a_channel_that_the_bot_may_not_see_is_silent(fake: FakeDiscord, bot: Bot) -> None:
    guild = fake.guild()
    hidden, seen = fake.channel(guild, "hidden"), fake.channel(guild, "seen")
    hidden.deny(fake.bot, Permission.VIEW_CHANNEL)
    alice = fake.user("alice", guild)
    alice.says(hidden, "one")
    alice.says(seen, "two")
    await fake.until(lambda: bot.heard)
    assert [message.content for message in bot.heard] == ["two"]


async def test_a_bot_that_shards_by_itself_asks_where_the_gateway_is(fake: FakeDiscord) -> None:
    channel = fake.channel(fake.guild())
    client = discord.AutoShardedClient(intents=discord.Intents.default(), guild_ready_timeout=0.02)
    async with client:
        task = asyncio.create_task(client.start(fake.token))
        await fake.until(client.is_ready)
        await client.get_partial_messageable(channel.id).send("here")
    await task
    assert [message.content for message in channel.messages] == ["here"]


KILLED = """
import asyncio, sys
import discord
from tests.discord_peer import redirected_to

class Bot(discord.Client):
    async def on_message(self, message):
        if message.author != self.user:
            await message.channel.send("half of an")
            await asyncio.sleep(60)

with redirected_to(sys.argv[1], sys.argv[2]):
    asyncio.run(Bot(intents=discord.Intents.all(), guild_ready_timeout=0.02).start(sys.argv[3]))
"""


async def test_a_bot_in_a_process_of_its_own_can_be_killed_and_another_takes_over(fake: FakeDiscord) -> None:
    channel = fake.channel(fake.guild())
    alice = fake.user("alice", *fake.world.guilds.values())
    arguments = (KILLED, fake.api_url, fake.gateway.url, fake.token)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", *arguments)
    try:
        await fake.until(lambda: fake.gateway.connected, within_s=30.0)
        alice.says(channel, "hello")
        await fake.until(lambda: channel.by(fake.bot))
    finally:
        process.kill()
        await process.wait()
    await fake.until(lambda: not fake.gateway.connected)
    alice.says(channel, "anybody?")
    async with logged_in(fake) as bot:
        words = [m.content async for m in bot.place(channel.id).history(limit=10, oldest_first=True)]
        assert words == ["hello", "half of an", "anybody?"]
        assert bot.heard == []
