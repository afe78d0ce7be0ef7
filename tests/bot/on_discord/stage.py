"""A whole bot on a fake Discord: the stock library, the adapter, the real core, and a model with a script."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from bot.clock import RealClock
from bot.config.platforms import DiscordSettings
from bot.core import Core, Rules, open_core, open_desk
from bot.on_discord.opening import Discord, open_discord
from bot.receiving.access import Access
from bot.receiving.reception import JOIN_MS
from bot.sending.pacing import ChannelPace, Pace
from storage.database import Database, open_database
from storage.ledger import check
from storage.schema import turn
from storage.transcript import Said, _said
from tests.bot.platform import FakeBrain
from tests.bot.world import KEY
from tests.bot.world import RULES as SMALL
from tests.discord_peer import Channel, FakeDiscord, Message

TOKEN_S = 0.002
RULES = replace(
    SMALL,
    rates=replace(SMALL.rates, daily_grant=100_000, balance_cap=200_000),
    wishes=replace(SMALL.wishes, params=replace(SMALL.wishes.params, max_new_tokens=3000)),
)
JOIN_S = JOIN_MS / 1000
POST = "POST /channels/{channel_id}/messages"
EDIT = "PATCH /channels/{channel_id}/messages/{message_id}"
DELETE = "DELETE /channels/{channel_id}/messages/{message_id}"
TYPING = "POST /channels/{channel_id}/typing"
SYNC = "PUT /applications/{application_id}/commands"


def quick_pace() -> Pace:
    """So that a test need not wait for the slots of real channels."""
    return ChannelPace(slots=1000, preview_interval_s=0.05)


def settings_of(fake: FakeDiscord, **changed: object) -> DiscordSettings:
    """The operator's, with the token of the fake's bot."""
    return DiscordSettings.model_validate({"enabled": True, "token": fake.token, **changed})


class Stage:
    """One bot that runs."""

    def __init__(self, fake: FakeDiscord, store: Database, brain: FakeBrain, discord: Discord) -> None:
        self.fake = fake
        self.store = store
        self.brain = brain
        self.discord = discord
        self.core: Core = None  # type: ignore[assignment]

    async def until(self, is_so: Callable[[], object], within_s: float = 10.0) -> None:
        """Wait until something is to be seen."""
        await self.fake.until(is_so, within_s)

    async def quiet(self, within_s: float = 20.0) -> None:
        """Until all that was said is dealt with, and shown."""
        await self.until(lambda: not self.core.num_busy, within_s)

    async def answers(self, channel: Channel, num: int) -> list[Message]:
        """The bot's messages in a channel, once there are so many and the bot is quiet."""
        await self.until(lambda: len(channel.by(self.fake.bot)) >= num)
        await self.quiet()
        return channel.by(self.fake.bot)

    async def turns(self) -> list[Said]:
        """All turns, in the order in which they were asked."""
        return await self.store.read(lambda c: _said(c, turn.c.id.is_not(None)))

    async def num_turns(self) -> int:
        return len(await self.store.read(lambda c: list(c.scalars(select(turn.c.id)))))

    def texts(self, channel: Channel) -> list[str]:
        """What the bot shows there now."""
        return [message.content for message in channel.by(self.fake.bot)]


@asynccontextmanager
async def open_stage(
    fake: FakeDiscord,
    path: Path,
    *,
    boot: str = "boot",
    pace: Callable[[], Pace] = quick_pace,
    token_s: float = TOKEN_S,
    rules: Rules = RULES,
    **settings: object,
) -> AsyncIterator[Stage]:
    """A bot that hears, on the store at `path`. When it ends its books are true.

    `settings` are those of [discord], the `admins` of [bot], and whether it `shows_presence`.
    """
    clock = RealClock()
    access = Access(clock, settings.pop("admins", ()), KEY)  # type: ignore[arg-type]
    shows_presence = settings.pop("shows_presence", False)
    wanted = settings_of(fake, **settings)
    async with (
        open_database(path) as store,
        open_discord(wanted, store, clock, access=access, pace=pace, settle_s=0.02) as discord,
    ):
        stage = Stage(fake, store, FakeBrain(clock, token_s), discord)
        desk = open_desk(store, clock, KEY, rules, access)
        ports = {"discord": discord.port}
        async with open_core(desk, stage.brain, ports, boot=boot, rules=rules) as core:
            stage.core = core
            async with discord.listening(core, stage.brain.survey if shows_presence else None):
                await fake.until(lambda: discord.is_ready)
                yield stage
        assert await store.read(check) == []


async def pause(seconds: float) -> None:
    """Let real time go by."""
    await asyncio.sleep(seconds)
