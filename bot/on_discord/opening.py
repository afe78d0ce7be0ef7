"""Opens the bot's account on Discord: logs in, says clearly what is wrong, listens while the core runs.

While Discord cannot be reached it tries on, and all else goes on meanwhile: nothing can be sent until then.
"""

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
from bot.on_discord.interactions import Interactions
from bot.on_discord.pacers import Pacers
from bot.on_discord.places import MARKER, Places
from bot.on_discord.port import DiscordPort
from bot.on_discord.presence import Look, show_presence_forever
from bot.on_discord.receipts import Receipts
from bot.on_discord.rights import Rights
from bot.on_discord.threads import Threads
from bot.on_discord.tree import sync_if_changed
from bot.on_discord.trying import waits_s
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
HEARD_S = 60.0
LOGIN_S = 60.0
LEAST_LEVEL = logging.INFO
"""Below it the library logs what people write."""
BAD_TOKEN = 4004
WRONG_TOKEN = (
    "Discord does not know this token: copy it anew from https://discord.com/developers/applications, page"
    " Bot, into what [discord] token_env or token_file names"
)
UPDATE = "Discord does not understand this version of Murmur; update it"
REMEDIES = {
    4010: UPDATE,
    4011: "the bot is in more servers of Discord than one connection may serve; take it off some of them",
    4012: UPDATE,
    4013: (
        "Discord does not grant what the bot asks to hear; look at the intents on"
        " https://discord.com/developers/applications, page Bot, set [discord] message_content = false, or"
        " update Murmur"
    ),
}
"""What to do after Discord's codes that end a connection for good. 4014 is answered with fewer intents."""
OTHER_REMEDY = "look at https://discordstatus.com, and start the bot again later"
NOT_LOGGED_IN = "Discord cannot be reached: {}"
READS_LESS = (
    "Discord has not granted the message content intent: mentions, direct messages, pinging replies, buttons"
    " and slash commands work, other replies and messages in threads do not. Switch it on at"
    " https://discord.com/developers/applications, page Bot, or set [discord] message_content = false"
)


class Discord:
    """A bot account. `port` is for the core, which `hearing` tells what it hears."""

    def __init__(
        self,
        settings: DiscordSettings,
        hearing: Hearing,
        interactions: Interactions,
        store: Database,
        clock: Clock,
        settle_s: float,
    ) -> None:
        self.port: DiscordPort
        self.hearing = hearing
        self._token = settings.token.get_secret_value()
        self._interactions = interactions
        self._store = store
        self._clock = clock
        self._settle_s = settle_s
        self._reads_all = settings.message_content
        self._clients = [self._made(reads_all=self._reads_all)]

    @property
    def client(self) -> Client:
        """The library's client, which is another one after a login or a change of intents."""
        return self._clients[-1]

    @property
    def is_ready(self) -> bool:
        """It is connected, and hears."""
        return self.client.is_ready() and not self.client.is_closed()

    async def begin(self) -> None:
        """Log in, if that can be done now. Raises ConfigError."""
        try:
            await self._log_in_once(reads_all=self._reads_all)
        except SendError as error:
            logger.warning("%s; I try again until it is done", NOT_LOGGED_IN.format(error))

    async def _log_in_once(self, *, reads_all: bool) -> None:
        """Be ready to send. Raises ConfigError, or Unreachable, Limited or Refused: it may pass."""
        client = self._made(reads_all=reads_all)
        try:
            async with translated(LOGIN_S):
                await _log_in(client, self._token)
        except BaseException:  # whatever ends the login, its connections are closed
            await finish(client.close(), CLOSE_S)
            raise
        self._clients.append(client)
        self.port.limits = msgspec.structs.replace(self.port.limits, hears_all=reads_all)

    async def _log_in_patiently(self, *, reads_all: bool) -> None:
        """Try until it is done. Raises ConfigError."""
        for wait_s in waits_s():
            try:
                await self._log_in_once(reads_all=reads_all)
            except SendError as error:
                logger.info("%s; once more in %.0f s", NOT_LOGGED_IN.format(error), wait_s)
                await self._clock.sleep(wait_s)
            else:
                logger.info("logged in to Discord")
                return

    def _made(self, *, reads_all: bool) -> Client:
        return Client(
            self.hearing, self._interactions, self._clock, reads_all=reads_all, settle_s=self._settle_s
        )

    async def close(self) -> None:
        """Hang up. A client that another has taken the place of may have been sending until now."""
        for client in self._clients:
            await finish(client.close(), CLOSE_S)

    @asynccontextmanager
    async def listening(
        self,
        core: Receiving,
        survey: Look | None = None,
        note_heard: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[None]:
        """Give the core all that is said, while the block runs, and show people what `survey` sees.

        `note_heard` is told now and then that Discord is heard, though it may have nothing to say.

        Raises ConfigError through it, or StorageError if something that was said cannot be kept.
        """
        self.hearing.core = core
        beside = [self._note_heard_forever(note_heard)]
        if survey is not None:
            beside.append(show_presence_forever(lambda: self.client, survey, self._clock))
        async with running(self._listen_forever(), self.hearing.until_failed(), *beside):
            yield

    async def _note_heard_forever(self, note_heard: Callable[[], None]) -> None:
        while True:
            await self._clock.sleep(HEARD_S)
            if not self.client.vitals().trouble():
                note_heard()

    async def _listen_forever(self) -> None:
        if self.client.user is None:
            await self._log_in_patiently(reads_all=self._reads_all)
        await self._sync()
        try:
            await self._connect()
        except discord.PrivilegedIntentsRequired:
            logger.warning(READS_LESS)
            await self._log_in_patiently(reads_all=False)
            await self._connect()

    async def _connect(self) -> None:
        try:
            await self.client.connect()
        except discord.ConnectionClosed as error:
            raise ConfigError(why_closed(error.code)) from error

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

    Where Discord cannot be reached now, `listening` tries until it can. After connecting, the library waits
    `settle_s` for servers that are still to come. Raises ConfigError for a wrong token.
    """
    logging.getLogger("discord").setLevel(LEAST_LEVEL)
    access = access or Access(clock)
    places = Places(await store.read(get_marker, PLATFORM, MARKER))
    async with running_group() as group:
        receipts = Receipts(clock, group)
        elsewhere = Elsewhere(clock, receipts, group)
        rights = Rights(clock)
        hearing = Hearing(settings, store, places, access, rights, clock)
        interactions = Interactions(settings, access, receipts, elsewhere, rights, hearing.keep)
        elsewhere.stop = hearing.stop
        account = Discord(settings, hearing, interactions, store, clock, settle_s)
        history, pacers = History(lambda: account.client, store, clock), Pacers(pace, clock)
        account.port = DiscordPort(lambda: account.client, receipts, elsewhere, history, pacers, clock)
        account.port.threads = Threads(lambda: account.client, store, clock, elsewhere, places, access)
        account.port.threads.by_default = settings.threads
        hearing.on_leave = pacers.forget
        rights.opens_threads = account.port.threads.are_wanted
        account.port.shows_seen = settings.seen_reaction
        account.port.pings_on_reply = settings.ping_on_reply
        await account.begin()
        try:
            yield account
        finally:
            await account.close()


def why_closed(code: int | None) -> str:
    """What `code` says of a connection that cannot be opened again, and what to do."""
    if code == BAD_TOKEN:
        return WRONG_TOKEN
    remedy = OTHER_REMEDY if code is None else REMEDIES.get(code, OTHER_REMEDY)
    return f"Discord has closed the connection for good (code {code}): {remedy}"


async def _log_in(client: Client, token: str) -> None:
    try:
        await client.login(token)
    except discord.LoginFailure as error:
        raise ConfigError(WRONG_TOKEN) from error
