"""KV caches of the sessions, by name: made, forked, given back, and put aside when memory is short.

Bookkeeping happens in the event loop; tensors are touched on the compute thread alone, through the executor.
"""

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable

from server.executor import Executor
from server.kv_cache import KVLost, KVPool, SessionCache
from server.session_effects import Room, SessionKey
from server.session_table import KVRooms
from server.waiting_line import Rank, WaitingLine, rank_of
from swarm.wire.blocks import PeerId, Span

logger = logging.getLogger(__name__)


class Rooms(KVRooms):
    """The KV pool of a server as its session table sees it."""

    def __init__(self, pool: KVPool, executor: Executor) -> None:
        self.pool = pool
        self.executor = executor
        self.is_short = asyncio.Event()
        """Set when somebody asked for room that was not there."""
        self.freed = asyncio.Event()
        """Set when pages were given back."""
        self.has_freed_memory = False
        """Tensors were freed since somebody last looked: the allocator still has their memory."""
        self.line = WaitingLine()
        self._caches: dict[SessionKey, SessionCache] = {}
        self._retired: list[SessionCache] = []
        self._unsure: set[SessionKey] = set()
        """Sessions that came back from the disk: what had been granted them may be others' by now."""

    def cache(self, key: SessionKey) -> SessionCache:
        """The cache of an open session."""
        return self._caches[key]

    def open(self, key: SessionKey, span: Span) -> Room:
        return self._keep(key, self.pool.open(span))

    def fork(self, parent: SessionKey, key: SessionKey, position: int) -> Room | None:
        source = self._caches[parent]
        if source.is_away:
            return None
        child = self.pool.fork(source, position)
        return None if child is None else self._keep(key, child)

    def close(self, key: SessionKey) -> None:
        cache = self._caches.pop(key, None)
        if cache is not None:
            self._retired.append(cache)
            self._unsure.discard(key)
            self.line.leave(key)
            self.freed.set()

    async def bury(self) -> None:
        """Give back what closed sessions held, between two batches: one of them may still be in a batch."""
        retired, self._retired = self._retired, []
        if retired:
            await self.executor.call(lambda: self._close_all(retired))
            self.freed.set()

    def _close_all(self, caches: list[SessionCache]) -> None:
        for cache in caches:
            self.pool.close(cache)
        self.has_freed_memory = True

    async def wake(self, key: SessionKey, position: int = 0) -> bool:
        """Bring a spilled cache back, with room up to `position`; False if there is none now, or no session.

        What was granted before it was spilled may be taken: then it waits in line as any other. Raises KVLost
        if it cannot be read back; it is empty then.
        """
        cache = self._caches.get(key)
        if cache is None or (cache.is_away and not await self._restored(key, cache)):
            return False
        return self._grant(key, position) >= position

    def lacks(self, key: SessionKey, position: int) -> bool:
        """Whether a session has to be woken before a step up to `position`."""
        cache = self._caches.get(key)
        if cache is None or cache.is_away:
            return True
        return key in self._unsure and position > self.pool.reserved(cache)

    def ask(self, key: SessionKey, position: int) -> None:
        """Have room made for what an open session needs up to `position`."""
        if key in self._caches:
            self._wait(key, position)

    async def _restored(self, key: SessionKey, cache: SessionCache) -> bool:
        try:
            is_back = self._is_next(key, cache.used) and await self.executor.call(
                lambda: self.pool.restore(cache)
            )
        except OSError as error:
            logger.warning("a session that was put aside cannot be read back: %s", error)
            self.empty(key)
            raise KVLost("what was put aside cannot be read back") from error
        if is_back:
            self.line.leave(key)
            self._unsure.add(key)
        elif key in self._caches:
            self._wait(key, cache.used)
        return is_back

    async def put_aside(self, key: SessionKey, is_idle: Callable[[], bool]) -> bool:
        """Spill a session's cache if it is still idle; False if not, or if there is no place on disk."""
        cache = self._caches[key]
        is_aside = await self.executor.call(lambda: self.pool.spill(cache, is_idle))
        self.has_freed_memory |= is_aside
        self.freed.set()
        return is_aside

    def trim(self, key: SessionKey, position: int) -> bool:
        """Take the pages above `position` from an idle session; tell whether there were any."""
        cache = self._caches[key]
        before = cache.own_pages
        self.pool.release_above(cache, position)
        is_less = cache.own_pages < before
        if is_less:
            self.freed.set()
        return is_less

    def empty(self, key: SessionKey) -> None:
        """Throw an idle session's cache away; its client will replay."""
        old = self._caches[key]
        self._caches[key] = self.pool.open(old.span)
        self._retired.append(old)

    def first_in_line(self) -> Rank | None:
        """The rank of the session that is served next."""
        return self.line.first(time.monotonic())

    def greedy(self, wanting: SessionKey | None = None, wanted_pages: int = 0) -> frozenset[PeerId]:
        """Clients with more than a fair share of the pages, if `wanting` had got what it waits for."""
        held: Counter[PeerId] = Counter()
        for key, cache in self._caches.items():
            if cache.own_pages or key == wanting:
                held[key.client] += max(cache.own_pages, wanted_pages if key == wanting else 0)
        share = self.pool.capacity_pages / max(1, len(held))
        return frozenset(client for client, pages in held.items() if pages > share)

    def _keep(self, key: SessionKey, cache: SessionCache) -> Room:
        self._caches[key] = cache
        return functools.partial(self._grant, key)

    def _grant(self, key: SessionKey, position: int, *, is_ahead: bool = False) -> int:
        cache = self._caches.get(key)
        if cache is None:  # closed, while its driver was still at something
            return 0
        if self._is_served(cache, key, position, is_ahead=is_ahead):
            self.line.leave(key)
            return max(position, self.pool.reserved(cache))
        if not is_ahead:
            self._wait(key, position)
        return 0 if cache.is_away else self.pool.reserved(cache)

    def _is_served(self, cache: SessionCache, key: SessionKey, position: int, *, is_ahead: bool) -> bool:
        if not cache.is_away and position <= self.pool.reserved(cache):
            return True
        if not self._is_next(key, position, is_ahead=is_ahead):
            return False
        if cache.is_away:  # it takes its pages when it comes back
            return self.pool.could_hold(cache, position)
        return self.pool.reserve(cache, position)

    def _is_next(self, key: SessionKey, position: int, *, is_ahead: bool = False) -> bool:
        first = self.first_in_line()
        return first is None or (not is_ahead and self._rank(key, position) <= first)

    def _wait(self, key: SessionKey, position: int) -> None:
        """Ask for room to be made. What can never be had keeps nobody else waiting."""
        pages = self.pool.pages_for(self._caches[key], position)
        if pages <= self.pool.capacity_pages:
            self.line.join(key, self._rank(key, position), time.monotonic())
            self.is_short.set()

    def _rank(self, key: SessionKey, position: int) -> Rank:
        pages = self.pool.pages_for(self._caches[key], position)
        return rank_of(key, is_greedy=key.client in self.greedy(key, pages))
