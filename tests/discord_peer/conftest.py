"""A fake Discord, and a bot of the stock library that is logged in to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import discord
import pytest_asyncio
from discord import app_commands

from tests.discord_peer import PRIVILEGED, FakeDiscord, Intent, Limit, open_fake_discord, redirected

QUICK = {
    "POST /channels/{channel_id}/messages": Limit(5, 0.2),
    "PATCH /channels/{channel_id}/messages/{message_id}": Limit(5, 0.2),
    "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me": Limit(5, 0.2),
    "POST /webhooks/{webhook_id}/{webhook_token}": Limit(5, 0.2),
}


class Bot(discord.Client):
    """Keeps what it hears."""

    def __init__(self, intents: discord.Intents) -> None:
        super().__init__(intents=intents, guild_ready_timeout=0.02, max_ratelimit_timeout=30)
        self.tree = app_commands.CommandTree(self)
        self.heard: list[discord.Message] = []
        self.interactions: list[discord.Interaction] = []
        self.happened: list[str] = []

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:
        """The library's own waits 5 s before a second IDENTIFY."""

    async def on_ready(self) -> None:
        self.happened.append("ready")

    async def on_resumed(self) -> None:
        self.happened.append("resumed")

    async def on_message(self, message: discord.Message) -> None:
        if message.author != self.user:
            self.heard.append(message)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.append(interaction)

    def place(self, channel_id: int, guild_id: int | None = None) -> discord.PartialMessageable:
        """A channel that need not be known; threads are started only where the guild is."""
        return self.get_partial_messageable(channel_id, guild_id=guild_id)


def all_intents() -> discord.Intents:
    return discord.Intents.all()


@asynccontextmanager
async def logged_in(fake: FakeDiscord, intents: discord.Intents | None = None) -> AsyncIterator[Bot]:
    """A bot that is ready."""
    bot = Bot(intents or all_intents())
    task = asyncio.create_task(bot.start(fake.token))
    try:
        await fake.until(lambda: "ready" in bot.happened or task.done())
        if task.done():
            task.result()
        yield bot
    finally:
        await bot.close()
        with suppress(asyncio.CancelledError, discord.DiscordException):
            task.cancel()
            await task


@asynccontextmanager
async def fake_discord(
    approved: Intent = PRIVILEGED, limits: dict[str, Limit] | None = None
) -> AsyncIterator[FakeDiscord]:
    """One that discord.py talks to, and whose findings are empty in the end."""
    async with open_fake_discord(approved, QUICK if limits is None else limits) as fake:
        with redirected(fake):
            yield fake
        assert fake.findings == []


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    async with fake_discord() as running:
        yield running


@pytest_asyncio.fixture
async def bot(fake: FakeDiscord) -> AsyncIterator[Bot]:
    async with logged_in(fake) as running:
        yield running
