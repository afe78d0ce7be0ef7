"""The Discord side as the bot's root sees it: a port and a listener, and errors that an operator can read."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from bot.clock import Clock
from bot.config.platforms import DiscordSettings
from bot.core import Core
from bot.on_discord.events import PLATFORM
from bot.on_discord.opening import open_discord
from bot.receiving.access import Access
from bot.sending.outbound import Outbound
from bot.vitals import Vitals
from storage.database import Database

Listen = Callable[[Core], Coroutine[Any, Any, None]]
Opened = tuple[Outbound, Listen, Callable[[], Vitals]]


@asynccontextmanager
async def open_platform(
    settings: DiscordSettings, store: Database, clock: Clock, access: Access
) -> AsyncIterator[Opened]:
    """The account; while Discord cannot be reached the listener tries on. Raises ConfigError, also there."""
    async with open_discord(settings, store, clock, access=access) as account:

        async def listen(core: Core) -> None:
            async with account.listening(core, core.commands.brain.survey, lambda: core.hear(PLATFORM)):
                await asyncio.Event().wait()

        yield account.port, listen, lambda: account.client.vitals()
