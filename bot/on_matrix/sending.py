"""Messages on their way to a room: encrypted wherever that was ever asked for, under a name that is theirs.

All that we say carries our mark, see messages.py.

Whatever the library believes of a room: what the store or its state has once called encrypted stays so.
"""

import asyncio
import hashlib

from bot.clock import Clock
from bot.on_matrix.fields import Object
from bot.on_matrix.memory import remember_encrypted, was_encrypted
from bot.on_matrix.messages import marked
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.sealing import Sealer
from bot.on_matrix.wire import Wire
from bot.words import Refused, Unreachable
from storage.database import Database

KNOWN_WITHIN_S = 20.0
KEY_LETTERS = 25


class Sending:
    """Sends events for us."""

    def __init__(
        self, wire: Wire, rooms: Rooms, sealer: Sealer | None, store: Database, clock: Clock
    ) -> None:
        self.wire = wire
        self.rooms = rooms
        self.is_ready = asyncio.Event()
        """We know our rooms: the first answer of the homeserver is there."""
        self._sealer = sealer
        self._store = store
        self._clock = clock
        self._remembered: set[str] = set()
        self._plain: set[str] = set()
        """Rooms that the store does not call encrypted; nobody else writes it."""

    async def message(self, room_id: str, content: Object, transaction: str) -> str:
        """Say something in a room; the same transaction again gives the same event. Returns its id.

        Raises Refused, Limited or Unreachable.
        """
        room, content = await self.room(room_id), marked(content)
        if not await self.is_encrypted(room):
            return await self.wire.put_event(room_id, "m.room.message", content, transaction)
        if self._sealer is None:
            raise Refused(f"{room_id} is encrypted, and this account does not encrypt")
        sealed = await self._sealer.seal(room_id, "m.room.message", content)
        return await self.wire.put_event(room_id, "m.room.encrypted", sealed, transaction)

    async def react(self, room_id: str, event_id: str, sign: str) -> str:
        """Put a sign at an event; the same sign again is the same event. Returns its id.

        Raises Refused, Limited or Unreachable.
        """
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": sign}
        key = hashlib.sha256(f"{event_id}/{sign}".encode()).hexdigest()[:KEY_LETTERS]
        content = marked({"m.relates_to": relation})
        return await self.wire.put_event(room_id, "m.reaction", content, f"sign-{key}")

    async def room(self, room_id: str) -> Room:
        """The room of that id. Raises Refused if we are not there, Unreachable if we do not know yet."""
        try:
            async with asyncio.timeout(KNOWN_WITHIN_S):
                await self.is_ready.wait()
        except TimeoutError:
            raise Unreachable("the homeserver has not told us our rooms yet") from None
        room = self.rooms.get(room_id)
        if room is None:
            raise Refused(f"we are not in {room_id}")
        return room

    async def is_encrypted(self, room: Room) -> bool:
        """Must nothing be said here in plain text? Kept in mind for ever where it must not."""
        if room.is_encrypted:
            await self.remember_encrypted(room)
            return True
        if room.room_id not in self._plain:
            now_ms = self._clock.now_ms()
            room.is_encrypted |= await self._store.write(was_encrypted, room.room_id, now_ms)
            if not room.is_encrypted:
                self._plain.add(room.room_id)
        return room.is_encrypted

    async def remember_encrypted(self, room: Room) -> None:
        """Note for ever what a room's state says now, once."""
        if room.is_encrypted and room.room_id not in self._remembered:
            await self._store.write(remember_encrypted, room.room_id, self._clock.now_ms())
            self._remembered.add(room.room_id)
