"""discord.py's client with what we listen to, and nothing kept in memory that we do not need."""

import logging
from collections.abc import Mapping
from typing import Any

import discord

from bot.clock import Clock
from bot.commands.catalogue import COMMANDS
from bot.on_discord.buttons import TurnButton
from bot.on_discord.hearing import Hearing
from bot.on_discord.receipts import Asked
from bot.on_discord.tree import Tree, build_tree

logger = logging.getLogger(__name__)

MOST_LIMITED_S = 30.0
"""After longer waits than this the library tells us instead of waiting."""


class Client(discord.Client):
    """Passes on what it hears."""

    def __init__(self, hearing: Hearing, clock: Clock, *, reads_all: bool, settle_s: float) -> None:
        super().__init__(
            intents=_intents(reads_all),
            max_messages=None,
            chunk_guilds_at_startup=False,
            guild_ready_timeout=settle_s,
            max_ratelimit_timeout=MOST_LIMITED_S,
            allowed_mentions=discord.AllowedMentions.none(),
        )
        self.tree: Tree = build_tree(self, COMMANDS, hearing.obey, hearing.ask_about)
        self.add_dynamic_items(TurnButton)
        self._hearing = hearing
        self._clock = clock

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

    async def on_turn_button(self, asked: Asked, command: str, turn_id: str) -> None:
        """Somebody pressed one of our buttons."""
        await self._hearing.press(asked, command, turn_id)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """Our own mistakes; what was said is no part of what is logged."""
        logger.exception("%s failed", event_method)  # noqa: LOG004 - called where it is handled


def _intents(reads_all: bool) -> discord.Intents:
    wanted: Mapping[str, bool] = {"guilds": True, "guild_messages": True, "dm_messages": True}
    return discord.Intents(**wanted, message_content=reads_all)
