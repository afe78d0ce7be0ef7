"""The notice that a place gets once, before the first of what is written there leaves for the swarm."""

import asyncio
import logging
from functools import partial

from bot.clock import Clock
from bot.sending.outbound import Outbound
from bot.sending.pacing import Priority
from bot.turns.display import key_of
from bot.words import Post, SendError, Where
from storage.conversations import note_told, open_place, was_told
from storage.database import Database, Transaction

logger = logging.getLogger(__name__)


class PlaceNotices:
    """Says `notice` in each place; where it is "" nothing is said.

    That it was said is noted afterwards: if it cannot be sent, or we die meanwhile, it is said again.
    """

    def __init__(self, store: Database, clock: Clock, notice: str) -> None:
        self._store = store
        self._clock = clock
        self._notice = notice
        self._under_way: dict[tuple[str, str], asyncio.Event] = {}

    async def tell(self, where: Where, event_id: str, port: Outbound) -> None:
        """Say who can read what is written at a place, unless people there were told.

        Who writes there meanwhile waits until it is said. It is a notice, not a gate: if it fails, we go on.
        Raises StoreBusy, StoreUnusable.
        """
        place = where.platform, where.place
        if not self._notice:
            return
        if (under_way := self._under_way.get(place)) is not None:
            await under_way.wait()
            return
        done = self._under_way[place] = asyncio.Event()
        try:
            if not await self._store.read(was_told, *place):
                await self._say(where, event_id, port)
        finally:
            del self._under_way[place]
            done.set()

    async def _say(self, where: Where, event_id: str, port: Outbound) -> None:
        text = "\n\n".join(filter(None, (self._notice, port.limits.controls)))
        notice = Post(text, key_of(f"notice {where.platform} {where.place}", 0))
        try:
            await port.pacer(where).send(Priority.NOTICE, None, partial(port.post, where, event_id, notice))
        except SendError as error:
            logger.warning("a place could not be told who can read what is written there: %s", error)
        else:
            await self._store.write(_note, where, self._clock.now_ms())


def _note(connection: Transaction, where: Where, now_ms: int) -> None:
    place = open_place(connection, where.platform, where.place, now_ms)
    note_told(connection, place.place_id, now_ms)
