"""discord.py's client with what we listen to, and nothing kept in memory that we do not need."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import discord

from bot.clock import Clock
from bot.commands.catalogue import COMMANDS
from bot.on_discord.buttons import TurnButton
from bot.on_discord.hearing import Hearing
from bot.on_discord.interactions import Interactions
from bot.on_discord.receipts import Asked
from bot.on_discord.requests import MOST_LIMITED_S, protect
from bot.on_discord.tree import Tree, build_tree
from bot.vitals import Vitals

logger = logging.getLogger(__name__)

MOST_AGE_S = 60.0
"""Discord wants to be heard every 41 s, and answers."""


class Client(discord.Client):
    """Passes on what it hears."""

    def __init__(
        self,
        hearing: Hearing,
        interactions: Interactions,
        clock: Clock,
        *,
        reads_all: bool,
        settle_s: float,
    ) -> None:
        super().__init__(
            intents=_intents(reads_all),
            max_messages=None,
            chunk_guilds_at_startup=False,
            guild_ready_timeout=settle_s,
            max_ratelimit_timeout=MOST_LIMITED_S,
            allowed_mentions=discord.AllowedMentions.none(),
        )
        protect(self.http, clock)
        self.tree: Tree = build_tree(self, COMMANDS, interactions.obey, interactions.ask_about)
        self.add_dynamic_items(TurnButton)
        self._hearing = hearing
        self._interactions = interactions
        self._clock = clock

    def vitals(self) -> Vitals:
        """How the gateway is."""
        is_ready = self.is_ready() and not self.is_closed()
        latency_s = self.latency if math.isfinite(self.latency) else None
        # Of its heartbeats the library tells how long the last answer took, but not how long ago it came.
        beats = getattr(self.ws, "_keep_alive", None)
        age_s = time.perf_counter() - beats._last_ack if beats is not None else None
        return Vitals(is_ready, age_s, MOST_AGE_S, latency_s)

    async def on_connect(self) -> None:
        """A fresh session, before anything that it hears."""
        self._hearing.begin_session(self._clock.now_ms())

    async def on_ready(self) -> None:
        """It knows the servers that we are in."""
        logger.info("connected to Discord, in %d servers", len(self.guilds))
        await self._hearing.catch_up(self)

    async def on_message(self, message: discord.Message) -> None:
        """Somebody wrote something."""
        if self.user is not None:
            await self._hearing.hear(message, self.user)

    async def on_raw_message_delete(self, gone: discord.RawMessageDeleteEvent) -> None:
        """Somebody deleted a message, or a moderator did."""
        await self._hearing.take_back(gone.channel_id, [gone.message_id])

    async def on_raw_bulk_message_delete(self, gone: discord.RawBulkMessageDeleteEvent) -> None:
        """Many messages were deleted at once."""
        await self._hearing.take_back(gone.channel_id, sorted(gone.message_ids))

    async def on_guild_channel_delete(self, channel: discord.abc.GuildChannel) -> None:
        """A channel is gone; the library tells of its threads one by one."""
        await self._hearing.leave(channel.id)

    async def on_raw_thread_delete(self, gone: discord.RawThreadDeleteEvent) -> None:
        """A thread is gone."""
        await self._hearing.leave(gone.thread_id)

    async def on_guild_remove(self, guild: discord.Guild) -> None:
        """Somebody has taken the bot off a server, or the server is gone."""
        await self._hearing.leave_all([each.id for each in (*guild.channels, *guild.threads)])

    async def on_turn_button(self, asked: Asked, command: str, turn_id: str) -> None:
        """Somebody pressed one of our buttons."""
        await self._interactions.press(asked, command, turn_id)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """Our own mistakes; what was said is no part of what is logged."""
        logger.exception("%s failed", event_method)  # noqa: LOG004 - called where it is handled


def _intents(reads_all: bool) -> discord.Intents:
    wanted: Mapping[str, bool] = {"guilds": True, "guild_messages": True, "dm_messages": True}
    return discord.Intents(**wanted, message_content=reads_all)
