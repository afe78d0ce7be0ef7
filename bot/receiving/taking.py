"""Events that are being dealt with: some at a time, each until it has come to something.

Those that wait for a platform, which may not be there for a minute, have a line of their own: nobody's `stop`
is to wait behind somebody's forty deletions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from bot.clock import Clock
from bot.words import Attached
from storage.errors import StoreBusy
from storage.inbox import Waiting
from swarm.background import RunningGroup

logger = logging.getLogger(__name__)

MOST_TAKEN = 32
MOST_WAITING_FOR_PLATFORMS = 16
TAKE_AGAIN_S = 1.0
TAKE_TRIES = 60


class _Slow(msgspec.Struct):
    """What of an event has to do with a platform."""

    deleted: str = ""
    files: tuple[Attached, ...] = ()


def waits_for_platform(event: Waiting) -> bool:
    """Something is to be taken away there, or to be read."""
    try:
        slow = msgspec.json.decode(event.event.payload, type=_Slow)
    except msgspec.DecodeError:
        return False
    return bool(slow.deleted or slow.files)


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

    def begin(self, platform: str, events: Sequence[Waiting]) -> None:
        """Deal with what has come from a platform."""
        for event in events:
            self.num += 1
            self._group.create_task(self._deal_with(platform, event))

    async def _deal_with(self, platform: str, event: Waiting) -> None:
        try:
            async with self._slow if waits_for_platform(event) else self._quick:
                await self._take_patiently(platform, event)
        except Exception:  # one event that we fail on keeps nobody else's from being dealt with
            logger.exception("event %s was given up", event.event.event_id)
        finally:
            self.num -= 1
            self._on_end()

    async def _take_patiently(self, platform: str, event: Waiting) -> None:
        """Again, if the store has no time for it."""
        for _ in range(TAKE_TRIES):
            try:
                return await self._take(platform, event)
            except StoreBusy:
                await self._clock.sleep(TAKE_AGAIN_S)
        return await self._take(platform, event)
