"""Rooms that go on elsewhere: what was said, set and decided there holds in the room that replaces them.

Only where both rooms say so, the old one through somebody who may end it: otherwise anybody could give a room
of theirs what belongs to another.
"""

import logging

from bot.clock import Clock
from bot.on_matrix.memory import move_rules, move_talk
from bot.on_matrix.rooms import Room
from bot.on_matrix.sending import Sending
from bot.receiving.access import Access
from storage.database import Database

logger = logging.getLogger(__name__)


class Moving:
    """Moves what belongs to rooms, once for each."""

    def __init__(self, sending: Sending, store: Database, clock: Clock, access: Access) -> None:
        self._sending = sending
        self._store = store
        self._clock = clock
        self._access = access
        self._moved: set[tuple[str, str]] = set()

    async def follow(self, room: Room) -> None:
        """Move what there is to be moved to this room, or from it, before anything else is noted of it."""
        for old, new in self._sending.rooms.moves_of(room):
            if (old.room_id, new.room_id) not in self._moved:
                await self._move(old, new)
                self._moved.add((old.room_id, new.room_id))

    async def _move(self, old: Room, new: Room) -> None:
        """Nothing that was said encrypted goes on in plain text; what was set there says nothing of it."""
        now_ms = self._clock.now_ms()
        if new.is_encrypted or not await self._sending.is_encrypted(old):
            await self._store.write(move_talk, old.room_id, new.room_id, now_ms)
        await self._store.write(move_rules, old.room_id, new.room_id, now_ms)
        await self._access.load(self._store)
        logger.info("room %s goes on as %s, and what holds there does", old.room_id, new.room_id)
