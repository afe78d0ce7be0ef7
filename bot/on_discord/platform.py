"""The Discord side as the bot's root sees it: a port and a listener, and errors that an operator can read."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from bot.clock import Clock
from bot.config.platforms import DiscordSettings
from bot.core import Core
from bot.on_discord.opening import Discord, open_discord
from bot.receiving.access import Access
from bot.sending.outbound import Outbound
from bot.vitals import Vitals
from bot.words import SendError
from storage.database import Database
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

RETRY_S = (1.0, 5.0, 15.0, 30.0)
Listen = Callable[[Core], Coroutine[Any, Any, None]]
Opened = tuple[Outbound, Listen, Callable[[], Vitals]]


@asynccontextmanager
async def open_platform(
    settings: DiscordSettings, store: Database, clock: Clock, access: Access
) -> AsyncIterator[Opened]:
    """The account, logged in; tried again for a while if Discord cannot be reached. Raises ConfigError."""
    async with AsyncExitStack() as stack:
        account = await _opened(stack, lambda: open_discord(settings, store, clock, access=access), clock)

        async def listen(core: Core) -> None:
            async with account.listening(core, core.commands.brain.survey):
                await asyncio.Event().wait()

        yield account.port, listen, lambda: account.client.vitals()


async def _opened(
    stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[Discord]], clock: Clock
) -> Discord:
    for wait_s in RETRY_S:
        try:
            return await stack.enter_async_context(opening())
        except SendError as error:
            logger.warning("Discord: %s; once more in %.0f s", error, wait_s)
            await clock.sleep(wait_s)
    try:
        return await stack.enter_async_context(opening())
    except SendError as error:
        raise ConfigError(f"Discord cannot be reached: {error}") from error
