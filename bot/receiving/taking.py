"""Events that are being dealt with: some at a time, each until it has come to something.

Those that wait for a platform, which may not be there for a minute, have a line of their own: nobody's `stop`
is to wait behind somebody's forty deletions. But who sends a file and then asks about it has sent the file
first: what else they say at that place waits until it is read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from bot.clock import Clock
from bot.receiving.attachments import MOST_FILES, READ_S
from bot.receiving.haste import RIGHTS
from bot.words import Inbound
from storage.errors import StoreBusy
from storage.inbox import Waiting
from swarm.background import RunningGroup

logger = logging.getLogger(__name__)

MOST_TAKEN = 32
MOST_WAITING_FOR_PLATFORMS = 16
TAKE_AGAIN_S = 1.0
TAKE_TRIES = 60
FILES_WITHIN_S = MOST_FILES * READ_S
"""Files that come with one message are read by then; nobody waits longer for them."""


class Taking:
    """Has `take` deal with events, in tasks of `group`, and tells `on_end` after each."""

    def __init__(
        self,
        group: RunningGroup,
        clock: Clock,
        take: Callable[[str, Waiting], Awaitable[None]],
        on_end: Callable[[], None],
    ) -> None:
        self.num = 0
        """Of events that are being dealt with."""
        self._group = group
        self._clock = clock
        self._take = take
        self._on_end = on_end
        self._quick = asyncio.Semaphore(MOST_TAKEN)
        self._slow = asyncio.Semaphore(MOST_WAITING_FOR_PLATFORMS)
        self._being_read: dict[tuple[str, str, str], asyncio.Event] = {}
        """Of each person at each place the last message with files, until it was dealt with."""

    def begin(self, platform: str, events: Sequence[Waiting]) -> None:
        """Deal with what has come from a platform."""
        for event in events:
            self.num += 1
            self._group.create_task(self._deal_with(platform, event))

    async def _deal_with(self, platform: str, event: Waiting) -> None:
        inbound = _read(event)
        is_slow = inbound is not None and bool(inbound.deleted or inbound.files)
        try:
            async with self._behind_files(inbound), self._slow if is_slow else self._quick:
                await self._take_patiently(platform, event)
        except Exception:  # one event that we fail on keeps nobody else's from being dealt with
            logger.exception("event %s was given up", event.event.event_id)
        finally:
            self.num -= 1
            self._on_end()

    @asynccontextmanager
    async def _behind_files(self, inbound: Inbound | None) -> AsyncIterator[None]:
        """Wait for the files that somebody has sent before, and have what they say next wait for these."""
        if inbound is None or inbound.deleted or _is_right(inbound):
            yield
            return
        line = inbound.where.platform, inbound.where.place, inbound.author.external_id
        before = self._being_read.get(line)
        mine = asyncio.Event()
        if inbound.files:
            self._being_read[line] = mine
        try:
            if before is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(FILES_WITHIN_S):
                        await before.wait()
            yield
        finally:
            mine.set()
            if self._being_read.get(line) is mine:
                del self._being_read[line]

    async def _take_patiently(self, platform: str, event: Waiting) -> None:
        """Again, if the store has no time for it."""
        for _ in range(TAKE_TRIES):
            try:
                return await self._take(platform, event)
            except StoreBusy:
                await self._clock.sleep(TAKE_AGAIN_S)
        return await self._take(platform, event)


def _read(event: Waiting) -> Inbound | None:
    """What an event says; None if it cannot be read."""
    try:
        return msgspec.json.decode(event.event.payload, type=Inbound)
    except msgspec.DecodeError:
        return None


def _is_right(inbound: Inbound) -> bool:
    return inbound.call is not None and inbound.call.command in RIGHTS
