"""Clocks at messages that wait: put there if there is time for it, taken away for certain.

Homeservers count signs, and what takes them away, as they count messages: all of it waits for its turn. Which
there are is kept in the store, so that a restart leaves none behind.
"""

import asyncio
import logging
from collections import OrderedDict
from functools import partial

import msgspec

from bot.clock import Clock
from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.sending import Sending
from bot.on_matrix.trying import Patience
from bot.sending.pacer import Pacer, Skipped
from bot.sending.pacing import Priority
from bot.words import Limited, Refused, SendError
from storage.database import Database
from storage.errors import StorageError
from storage.inbox import get_marker, set_marker

logger = logging.getLogger(__name__)

SIGN = "🕐"
PUT_WITHIN_S = 2.0
MAX_KEPT = 500
MARKER = "clocks"

Spot = tuple[str, str]
"""A room, and a message in it."""


class Clocks:
    """Our signs at messages that wait. Those that nobody wants any more go one by one."""

    def __init__(self, sending: Sending, pacer: Pacer, store: Database, clock: Clock) -> None:
        self._sending = sending
        self._pacer = pacer
        self._store = store
        self._clock = clock
        self._there: OrderedDict[Spot, str] = OrderedDict()
        """Their ids; "" of one that was sent, and of which nobody knows yet what it is called."""
        self._wanted: set[Spot] = set()
        self._is_loaded = False
        self._changed = asyncio.Event()

    async def put(self, room_id: str, event_id: str) -> None:
        """Show that a message waits, unless more important things do: it may be its turn by then."""
        spot = room_id, event_id
        self._wanted.add(spot)
        try:
            async with asyncio.timeout(PUT_WITHIN_S):
                await self._load()
                if not self._there.get(spot):
                    await self._pacer.send(Priority.CONTROL, None, partial(self._put, spot))
        except (TimeoutError, Skipped, SendError) as error:
            logger.info("message %s has no clock: %s", event_id, error)
        except asyncio.CancelledError:
            self.take_away(*spot)  # nobody else will ask for it
            raise

    def take_away(self, room_id: str, event_id: str) -> None:
        """A message waits no more: its clock goes soon, if it has one."""
        self._wanted.discard((room_id, event_id))
        self._changed.set()

    async def take_away_forever(self) -> None:
        """Take away what nobody wants, until cancelled: first what a run before this one has left."""
        patience = Patience(self._clock, "the clock at a message that waits no more stays there")
        await self._sending.is_ready.wait()
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._load()
                for spot in [each for each in self._there if each not in self._wanted]:
                    await self._take_away(spot)
            except (SendError, StorageError) as error:
                await patience.wait(error)
                self._changed.set()
            else:
                patience.end()

    async def _put(self, spot: Spot) -> None:
        self._there[spot] = ""  # whoever is cut off does not learn its id
        while len(self._there) > MAX_KEPT:
            self._there.popitem(last=False)
        await self._keep()
        try:
            self._there[spot] = await self._sending.react(*spot, SIGN)
        except (Limited, Refused):
            self._there.pop(spot, None)
            raise
        finally:
            await self._keep()

    async def _take_away(self, spot: Spot) -> None:
        room_id, event_id = spot
        try:
            if not self._there[spot]:  # the same sign again is the same event
                put = partial(self._sending.react, room_id, event_id, SIGN)
                self._there[spot] = await self._pacer.send(Priority.CONTROL, None, put)
            redact = partial(self._sending.wire.redact, room_id, self._there[spot])
            await self._pacer.send(Priority.CONTROL, None, redact)
        except Refused as error:
            logger.info("the clock at message %s stays there: %s", event_id, error)
        self._there.pop(spot, None)
        await self._keep()

    async def _keep(self) -> None:
        kept = [(*spot, sign_id) for spot, sign_id in self._there.items()]
        await self._store.write(set_marker, PLATFORM, MARKER, msgspec.json.encode(kept).decode())

    async def _load(self) -> None:
        """What was there when the run before this one ended; once."""
        if self._is_loaded:
            return
        for room_id, event_id, sign_id in _read(await self._store.read(get_marker, PLATFORM, MARKER)):
            self._there.setdefault((room_id, event_id), sign_id)
        self._is_loaded = True


def _read(dumped: str | None) -> list[tuple[str, str, str]]:
    try:
        return msgspec.json.decode(dumped or "[]", type=list[tuple[str, str, str]])
    except msgspec.DecodeError:
        logger.warning("where clocks were before the restart is lost")
        return []
