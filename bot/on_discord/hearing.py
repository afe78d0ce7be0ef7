"""What people say on Discord, given to the core: durable first, and all else after it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

import discord
import msgspec

from bot.clock import Clock
from bot.config.platforms import DiscordSettings
from bot.on_discord.catching_up import CatchingUp
from bot.on_discord.deletions import Deletions
from bot.on_discord.errors import translated
from bot.on_discord.events import (
    PLATFORM,
    event_of,
    inbound_of,
    is_addressed,
    is_spoken,
    may_use,
)
from bot.on_discord.places import Places, thread_marker
from bot.on_discord.rights import Rights
from bot.receiving.access import Access
from bot.words import Inbound, Origin, SendError
from storage.database import Database, Transaction
from storage.errors import StorageError, StoreBusy
from storage.inbox import Event, drop_marker, get_marker, set_marker
from storage.transcript import open_turns
from swarm.background import running

logger = logging.getLogger(__name__)

BUSY_S = (0.5, 2.0, 8.0)


class Receiving(Protocol):
    """The core, as far as it hears."""

    async def receive(
        self, platform: str, events: Sequence[Event], markers: Mapping[str, str] | None = None
    ) -> None: ...

    async def leave_place(self, platform: str, place: str) -> None: ...

    def stop(self, turn_id: str) -> None: ...


class Hearing:
    """Hears for the core. `places` is how far Discord had been read before."""

    def __init__(
        self,
        settings: DiscordSettings,
        store: Database,
        places: Places,
        access: Access,
        rights: Rights,
        clock: Clock,
    ) -> None:
        self.core: Receiving | None = None
        self.on_leave: Callable[[str], None] = lambda place: None
        """Who else has to know that a place is there no more."""
        self._settings = settings
        self._store = store
        self._places = places
        self._access = access
        self._rights = rights
        self._failure: StorageError | None = None
        self._has_failed = asyncio.Event()
        self.deletions = Deletions(store, self._receive)
        self._catching_up = CatchingUp(store, places, self, clock)
        self._being_heard: dict[int, bool] = {}
        """Messages that are not kept yet, and whether they have been deleted since."""

    # --- messages ----------------------------------------------------------------------------------------

    async def hear(self, message: discord.Message, me: discord.ClientUser) -> None:
        """A message was written somewhere."""
        self._being_heard[message.id] = False
        try:
            await self._hear(message, me)
        finally:
            is_gone = self._being_heard.pop(message.id, False)
        if is_gone:
            await self.take_back(message.channel.id, [message.id])

    async def take_back(self, channel_id: int, message_ids: Iterable[int]) -> None:
        """Messages were deleted: the core deals with those that we know of."""
        gone: list[tuple[int, int]] = []
        for message_id in message_ids:
            if message_id in self._being_heard:
                self._being_heard[message_id] = True
            else:
                gone.append((channel_id, message_id))
        await self.deletions.give(gone)

    async def leave(self, place_id: int) -> None:
        """A channel or thread is there no more: nothing is read or written there, and what runs ends."""
        self._catching_up.forget(place_id)
        await self._store.write(_forget_place, place_id, self._places.forget(place_id))
        self.on_leave(str(place_id))
        if self.core is not None:
            await self.core.leave_place(PLATFORM, str(place_id))
            self.on_leave(str(place_id))

    async def leave_all(self, place_ids: Collection[int]) -> None:
        """The bot was taken off a server with these channels and threads."""
        used = await self._store.read(_places_of_turns)
        for place_id in place_ids:
            if place_id in self._places or str(place_id) in used:
                await self.leave(place_id)

    async def _hear(self, message: discord.Message, me: discord.ClientUser) -> None:
        await self._find_thread(message, me)
        channel = message.channel
        inbound = inbound_of(message, me) if await self._is_for_us(message, me) else None
        if inbound is None or not may_use(self._settings, self._access, message.author, channel, channel.id):
            self._places.note_seen(channel.id, message.id)
        elif missing := self._rights.missing_below(message, me):
            self._places.note_seen(channel.id, message.id)
            if is_addressed(message, me):
                await self._rights.tell(message.author, channel.id, missing)
        else:
            await self.keep(inbound)

    def begin_session(self, now_ms: int) -> None:
        """A fresh session hears nothing of what was before it: remember where to read on."""
        self._catching_up.begin_session(now_ms)

    async def catch_up(self, client: discord.Client) -> None:
        """Learn what was said and deleted meanwhile."""
        await self._catching_up.catch_up(client)

    async def _is_for_us(self, message: discord.Message, me: discord.ClientUser) -> bool:
        if not is_spoken(message):
            return False
        if is_addressed(message, me):
            return True
        if self._access.habits.is_on("always", PLATFORM, str(message.channel.id)):
            return not message.mention_everyone
        return isinstance(message.channel, discord.Thread) and await self._is_ours(message.channel.id)

    async def _is_ours(self, thread_id: int) -> bool:
        return await self._store.read(get_marker, PLATFORM, thread_marker(thread_id)) is not None

    async def _find_thread(self, message: discord.Message, me: discord.ClientUser) -> None:
        """A message may wake a thread that was archived, and that the library has forgotten."""
        channel, guild = message.channel, message.guild
        if guild is None or not isinstance(channel, discord.PartialMessageable):
            return
        if me.id not in message.raw_mentions and not await self._is_ours(channel.id):
            return
        try:
            async with translated():
                found = await guild.fetch_channel(channel.id)
        except SendError as error:
            logger.info("channel %s is not known: %s", channel.id, error)
            return
        if isinstance(found, discord.Thread):
            message.channel = found

    # --- given to the core ---------------------------------------------------------------------------------

    async def keep(self, inbound: Inbound) -> None:
        """Hand an event to the core, which keeps it."""
        markers = self._places.note(int(inbound.where.place), int(inbound.event_id))
        if inbound.where.kind == "thread" and inbound.call is None:
            markers[thread_marker(inbound.where.place)] = "ours"
        await self._give([event_of(inbound)], markers)

    def stop(self, turn_id: str) -> None:
        """End what is written for a turn."""
        if self.core is not None:
            self.core.stop(turn_id)

    async def _receive(self, events: Sequence[Event], markers: Mapping[str, str] | None = None) -> None:
        assert self.core is not None
        await self.core.receive(PLATFORM, events, markers)

    async def _give(self, events: Sequence[Event], markers: Mapping[str, str]) -> None:
        """Hand events to the core. What it cannot keep ends the bot: the next one reads on before it."""
        failure: StorageError | None = None
        for wait_s in (*BUSY_S, 0.0):
            try:
                await self._receive(events, markers)
            except StorageError as error:
                failure = error
                if not isinstance(error, StoreBusy):
                    break
                await asyncio.sleep(wait_s)
            else:
                return
        self._failure = failure
        self._has_failed.set()

    async def until_failed(self) -> None:
        """Wait until something that was said could not be kept. Raises why: StoreBusy, StoreUnusable.

        Deletions end nothing: as long as it can be waited for, they are tried again.
        """
        async with running(self.deletions.give_again_forever(), self._catching_up.try_again_forever()):
            await self._has_failed.wait()
        assert self._failure is not None
        raise self._failure


def _places_of_turns(connection: Transaction) -> set[str]:
    """Where turns were asked for that have not ended."""
    origins = (msgspec.json.decode(said.question.origin, type=Origin) for said in open_turns(connection))
    return {each.where.place for each in origins if each.where.platform == PLATFORM}


def _forget_place(connection: Transaction, place_id: int, markers: Mapping[str, str]) -> None:
    drop_marker(connection, PLATFORM, thread_marker(place_id))
    for name, value in markers.items():
        set_marker(connection, PLATFORM, name, value)
