"""What happened while Discord did not tell us: a fresh session hears nothing of what was before it.

Read are the places where people have talked to us in the last days: what was said there after what we know
of, and whether the messages that we have answered are still there. Whoever deletes one deletes what became of
it, also while we are away. What Discord does not show now is tried again, until it was read.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

import discord
import msgspec

from bot.clock import Clock
from bot.on_discord.errors import UNKNOWN_CHANNEL, RefusedWith, translated
from bot.on_discord.events import PLATFORM
from bot.on_discord.history import find_deleted
from bot.on_discord.places import ACTIVE_S, Places
from bot.on_discord.trying import waits_s
from bot.words import Inbound, Refused, SendError
from storage.database import Database, Transaction
from storage.errors import StorageError
from storage.inbox import set_marker, waiting
from storage.messages import asked_since

logger = logging.getLogger(__name__)

MOST_MISSED = 100


class Hears(Protocol):
    """Who is told what is found."""

    async def hear(self, message: discord.Message, me: discord.ClientUser) -> None: ...

    async def take_back(self, channel_id: int, message_ids: Iterable[int]) -> None: ...

    async def leave(self, place_id: int) -> None: ...


class CatchingUp:
    """Reads what was missed. `places` is how far Discord had been read before."""

    def __init__(self, store: Database, places: Places, hears: Hears, clock: Clock) -> None:
        self._store = store
        self._places = places
        self._hears = hears
        self._clock = clock
        self._client: discord.Client | None = None
        self._missed_after: dict[int, int] = {}
        """Places that are to be read on, and from where."""
        self._to_look_through: set[int] = set()
        """Places in which is to be looked for what was deleted."""
        self._since_ms = 0
        self._has_more = asyncio.Event()

    def begin_session(self, now_ms: int) -> None:
        """A fresh session begins: remember where to read on."""
        self._missed_after = self._places.active(now_ms)
        self._to_look_through = set(self._missed_after)
        self._places.hold(self._missed_after)
        self._since_ms = now_ms - round(ACTIVE_S * 1000)

    def forget(self, place_id: int) -> None:
        """There is nothing to be read there any more."""
        self._missed_after.pop(place_id, None)
        self._to_look_through.discard(place_id)

    async def catch_up(self, client: discord.Client) -> None:
        """Read the newest hundred messages of each place, first all that is to be answered."""
        self._client = client
        found: dict[int, discord.abc.Messageable] = {}
        try:
            for place_id, newest_id in list(self._missed_after.items()):
                channel = await self._read_place(client, place_id, newest_id)
                if channel is not None:
                    found[place_id] = channel
            for place_id in self._to_look_through - self._missed_after.keys():
                await self._look_through(client, place_id, found.get(place_id))
        finally:
            if self._to_look_through:
                self._has_more.set()

    async def try_again_forever(self) -> None:
        """Read what could not be read, ever more rarely."""
        while True:
            await self._has_more.wait()
            for wait_s in waits_s():
                await self._clock.sleep(wait_s)
                self._has_more.clear()
                assert self._client is not None
                try:
                    await self.catch_up(self._client)
                except StorageError as error:
                    logger.warning("what was missed cannot be kept: %s; once more later", error)
                if not self._has_more.is_set():
                    break

    async def _read_place(
        self, client: discord.Client, place_id: int, newest_id: int
    ) -> discord.abc.Messageable | None:
        """Read a place on; returns it, if it is to be read at all."""
        channel = None
        if place_id not in self._missed_after:  # it was left meanwhile
            return None
        try:
            channel = await _channel(client, place_id)
            if channel is not None:
                await self._read_on(client, channel, newest_id)
        except (SendError, StorageError) as error:
            logger.info("place %s cannot be read on: %s", place_id, error)
            if isinstance(error, RefusedWith) and error.code == UNKNOWN_CHANNEL:
                await self._hears.leave(place_id)
            if not isinstance(error, Refused):
                return None
            self._to_look_through.discard(place_id)
        if self._missed_after.get(place_id) == newest_id:
            del self._missed_after[place_id]
            for name, value in self._places.let_go(place_id).items():
                await self._store.write(set_marker, PLATFORM, name, value)
        return channel

    async def _look_through(
        self, client: discord.Client, place_id: int, channel: discord.abc.Messageable | None
    ) -> None:
        try:
            channel = channel or await _channel(client, place_id)
            if channel is not None:
                await self._look_for_deleted(client, place_id, channel)
        except (SendError, StorageError) as error:
            logger.info("what was deleted in place %s is not known: %s", place_id, error)
            if not isinstance(error, Refused):
                return
        self._to_look_through.discard(place_id)

    async def _read_on(
        self, client: discord.Client, channel: discord.abc.Messageable, newest_id: int
    ) -> None:
        assert client.user is not None
        async with translated():
            after = discord.Object(newest_id)
            read = channel.history(limit=MOST_MISSED, after=after, oldest_first=False)
            messages = [message async for message in read]
        for message in reversed(messages):
            await self._hears.hear(message, client.user)

    async def _look_for_deleted(
        self, client: discord.Client, place_id: int, channel: discord.abc.Messageable
    ) -> None:
        known = await self._store.read(_known, place_id, self._since_ms)
        if known:
            around_id = channel.parent_id if isinstance(channel, discord.Thread) else place_id
            around = client.get_partial_messageable(around_id)
            for each in await find_deleted(place_id, channel, around, known):
                await self._hears.take_back(around_id if each == place_id else place_id, [each])


async def _channel(client: discord.Client, place_id: int) -> discord.abc.Messageable | None:
    async with translated():
        channel = client.get_channel(place_id) or await client.fetch_channel(place_id)
    if isinstance(channel, discord.abc.Messageable) and client.user is not None:
        return channel
    return None


def _known(connection: Transaction, place_id: int, since_ms: int) -> list[int]:
    """The newest messages of people at a place that we keep something of: answered, or still in the inbox."""
    asked = asked_since(connection, PLATFORM, str(place_id), since_ms, MOST_MISSED)
    kept = (_place_and_message(each.event.payload) for each in waiting(connection, PLATFORM))
    here = [message_id for place, message_id in kept if place == str(place_id)]
    return [int(each) for each in (*asked, *here) if each.isdecimal()]


def _place_and_message(payload: bytes) -> tuple[str, str]:
    """Where a message was written that is to be dealt with, and its id; two times "" if it is none."""
    try:
        inbound = msgspec.json.decode(payload, type=Inbound)
    except msgspec.DecodeError:
        return "", ""
    is_message = inbound.call is None and not inbound.deleted
    return (inbound.where.place, inbound.event_id) if is_message else ("", "")
