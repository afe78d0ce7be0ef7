"""Opens the bot's account on Discord: logs in, says clearly what is wrong, listens while the core runs."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import discord
import msgspec

from bot.clock import Clock
from bot.config.platforms import DiscordSettings
from bot.on_discord.client import Client
from bot.on_discord.elsewhere import Elsewhere
from bot.on_discord.errors import translated
from bot.on_discord.events import PLATFORM
from bot.on_discord.hearing import Hearing, Receiving
from bot.on_discord.history import History
from bot.on_discord.pacers import Pacers
from bot.on_discord.places import MARKER, Places
from bot.on_discord.port import DiscordPort
from bot.on_discord.presence import Look, show_presence_forever
from bot.on_discord.receipts import Receipts
from bot.on_discord.threads import Threads
from bot.on_discord.tree import sync_if_changed
from bot.receiving.access import Access
from bot.sending.pacing import ChannelPace, Pace
from bot.words import SendError
from storage.database import Database
from storage.inbox import get_marker
from swarm.background import finish, running, running_group
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

SETTLE_S = 2.0
CLOSE_S = 10.0
LOGIN_S = 60.0
LEAST_LEVEL = logging.INFO
"""Below it the library logs what people write."""
BAD_TOKEN = 4004
WRONG_TOKEN = (
    "Discord does not know this token: copy it anew from https://discord.com/developers/applications, page"
    " Bot, into what [discord] token_env or token_file names"
)
READS_LESS = (
    "Discord has not granted the message content intent: mentions, direct messages, pinging replies, buttons"
    " and slash commands work, other replies and messages in threads do not. Switch it on at"
    " https://discord.com/developers/applications, page Bot, or set [discord] message_content = false"
)


class Discord:
    """A bot account that is logged in. `port` is for the core, which `hearing` tells what it hears."""

    def __init__(self, token: str, hearing: Hearing, store: Database, clock: Clock, settle_s: float) -> None:
        self.port: DiscordPort
        self._token = token
        self.hearing = hearing
        self._store = store
        self._clock = clock
        self._settle_s = settle_s
        self._clients: list[Client] = []

    @property
    def client(self) -> Client:
        """The library's client, which is another one after a change of intents."""
        return self._clients[-1]

    @property
    def is_ready(self) -> bool:
        """It is connected, and hears."""
        return self.client.is_ready() and not self.client.is_closed()

    async def log_in(self, *, reads_all: bool) -> None:
        """Be ready to send; `reads_all` says what will be heard. Raises ConfigError, Unreachable, Limited."""
        client = Client(self.hearing, self._clock, reads_all=reads_all, settle_s=self._settle_s)
        try:
            async with translated(LOGIN_S):
                await _log_in(client, self._token)
        except BaseException:  # whatever ends the login, its connections are closed
            await finish(client.close(), CLOSE_S)
            raise
        self._clients.append(client)
        self.port.limits = msgspec.structs.replace(self.port.limits, hears_all=reads_all)

    async def close(self) -> None:
        """Hang up. A client that another has taken the place of may have been sending until now."""
        for client in self._clients:
            await finish(client.close(), CLOSE_S)

    @asynccontextmanager
    async def listening(self, core: Receiving, survey: Look | None = None) -> AsyncIterator[None]:
        """Give the core all that is said, while the block runs, and show people what `survey` sees.

        Raises ConfigError through it, or StorageError if something that was said cannot be kept.
        """
        self.hearing.core = core
        beside = [] if survey is None else [show_presence_forever(lambda: self.client, survey, self._clock)]
        async with running(self._listen_forever(), self.hearing.until_failed(), *beside):
            yield

    async def _listen_forever(self) -> None:
        await self._sync()
        try:
            await self._connect()
        except discord.PrivilegedIntentsRequired:
            logger.warning(READS_LESS)
            await self.log_in(reads_all=False)
            await self._connect()

    async def _connect(self) -> None:
        try:
            await self.client.connect()
        except discord.ConnectionClosed as error:
            if error.code == BAD_TOKEN:
                raise ConfigError(WRONG_TOKEN) from error
            raise ConfigError(f"Discord has closed the connection for good (code {error.code})") from error

    async def _sync(self) -> None:
        try:
            if await sync_if_changed(self.client.tree, self._store, PLATFORM):
                logger.info("Discord was told the commands")
        except SendError as error:
            logger.warning("Discord was not told the commands: %s", error)


@asynccontextmanager
async def open_discord(
    settings: DiscordSettings,
    store: Database,
    clock: Clock,
    *,
    access: Access | None = None,
    pace: Callable[[], Pace] = ChannelPace,
    settle_s: float = SETTLE_S,
) -> AsyncIterator[Discord]:
    """A bot account for the length of the block; `listening` makes it hear.

    After connecting, the library waits `settle_s` for servers that are still to come. Raises ConfigError for
    a wrong token, Unreachable or Limited if there is no way to Discord.
    """
    logging.getLogger("discord").setLevel(LEAST_LEVEL)
    access = access or Access(clock)
    places = Places(await store.read(get_marker, PLATFORM, MARKER))
    async with running_group() as group:
        receipts = Receipts(clock, group)
        elsewhere = Elsewhere(clock)
        hearing = Hearing(settings, store, receipts, elsewhere, places, access)
        account = Discord(settings.token.get_secret_value(), hearing, store, clock, settle_s)
        history, pacers = History(lambda: account.client, store, clock), Pacers(pace, clock)
        account.port = DiscordPort(lambda: account.client, receipts, elsewhere, history, pacers, clock)
        account.port.threads = Threads(lambda: account.client, store, clock, elsewhere, places, access)
        account.port.threads.by_default = settings.threads
        hearing.on_leave = pacers.forget
        account.port.shows_seen = settings.seen_reaction
        account.port.pings_on_reply = settings.ping_on_reply
        await account.log_in(reads_all=settings.message_content)
        try:
            yield account
        finally:
            await account.close()


async def _log_in(client: Client, token: str) -> None:
    try:
        await client.login(token)
    except discord.LoginFailure as error:
        raise ConfigError(WRONG_TOKEN) from error
