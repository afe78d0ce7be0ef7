"""Messages that were deleted on Discord, on their way to the core: Discord tells of each of them once.

What cannot be kept now is given again, as long as we run. After a restart it is found by looking, see
catching_up.py.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from bot.on_discord.events import PLATFORM, deletion_of, event_of
from storage.database import Database
from storage.errors import StorageError
from storage.inbox import Event
from storage.messages import is_known

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
MOST_WAITING = 10_000

Gone = tuple[int, int]
"""A channel and a message that was there."""


class Deletions:
    """Has the core `receive` deletions, those of messages that we know."""

    def __init__(self, store: Database, receive: Callable[[Sequence[Event]], Awaitable[None]]) -> None:
        self.again_s = AGAIN_S
        self._store = store
        self._receive = receive
        self._waiting: OrderedDict[Gone, None] = OrderedDict()
        self._changed = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """How many could not be given to the core yet."""
        return len(self._waiting)

    async def give(self, gone: Sequence[Gone]) -> None:
        """Messages were deleted. What cannot be kept waits until the store can be written again."""
        try:
            await self._give(gone)
        except StorageError as error:
            logger.warning("%d deletions are not kept: %s; once more later", len(gone), error)
            self._waiting.update(dict.fromkeys(gone))
            while len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
            self._changed.set()

    async def give_again_forever(self) -> None:
        """Try what waits again and again."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self.again_s)
            waiting = list(self._waiting)
            try:
                await self._give(waiting)
            except StorageError:
                continue
            for each in waiting:
                self._waiting.pop(each, None)
            if not self._waiting:
                self._changed.clear()

    async def _give(self, gone: Sequence[Gone]) -> None:
        known = [
            each for each in gone if await self._store.read(is_known, PLATFORM, str(each[0]), str(each[1]))
        ]
        if known:
            await self._receive([event_of(deletion_of(*each)) for each in known])
