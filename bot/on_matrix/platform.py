"""The Matrix side as the bot's root sees it: a port and a listener, and errors that an operator can read."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from bot.clock import Clock
from bot.config.platforms import MatrixSettings
from bot.core import Core
from bot.on_matrix.account import NotLoggedIn, open_account
from bot.on_matrix.adapter import MatrixAdapter
from bot.on_matrix.cross_signing import IdentityRefused
from bot.on_matrix.signing_seeds import SeedsUnusable
from bot.on_matrix.wire import LoggedOut
from bot.receiving.access import Access
from bot.sending.outbound import Outbound
from bot.vitals import Vitals
from storage.database import Database
from swarm.errors import ConfigError

LOGGED_OUT = "the homeserver does not know our session any more: log in anew with ./murmur matrix login"
Listen = Callable[[Core], Coroutine[Any, Any, None]]
Opened = tuple[Outbound, Listen, Callable[[], Vitals]]


@asynccontextmanager
async def open_platform(
    settings: MatrixSettings, prefix: str, store: Database, clock: Clock, access: Access
) -> AsyncIterator[Opened]:
    """The account, taken up where it was. Raises ConfigError, also through the listener."""
    secret = settings.store_secret.get_secret_value()
    try:
        async with open_account(settings.homeserver, settings.user, settings.store, secret) as client:
            adapter = MatrixAdapter(client, settings, store, clock, prefix=prefix, access=access)

            async def listen(core: Core) -> None:
                try:
                    await adapter.read_forever(core, core.commands.brain.survey)
                except LoggedOut as error:
                    raise ConfigError(LOGGED_OUT) from error
                except (IdentityRefused, SeedsUnusable) as error:
                    raise ConfigError(str(error)) from error

            yield adapter.port, listen, adapter.vitals
    except NotLoggedIn as error:
        raise ConfigError(str(error)) from error
