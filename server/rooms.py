"""KV caches of the sessions, by name: made, forked, given back, and put aside when memory is short.

Bookkeeping happens in the event loop; tensors are touched on the compute thread alone, through the executor.
"""

import asyncio
import logging
from collections.abc import Callable

from server.executor import Executor
from server.kv_cache import KVPool, SessionCache
from server.session_effects import SessionKey
from server.session_table import KVRooms
from swarm.wire.blocks import Span

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
        self._caches: dict[SessionKey, SessionCache] = {}
        self._retired: list[SessionCache] = []

    def cache(self, key: SessionKey) -> SessionCache:
        """The cache of an open session."""
        return self._caches[key]

    def open(self, key: SessionKey, span: Span) -> Callable[[int], int]:
        return self._keep(key, self.pool.open(span))

    def fork(self, parent: SessionKey, key: SessionKey, position: int) -> Callable[[int], int] | None:
        source = self._caches[parent]
        if source.is_away:
            return None
        child = self.pool.fork(source, position)
        return None if child is None else self._keep(key, child)

    def close(self, key: SessionKey) -> None:
        cache = self._caches.pop(key, None)
        if cache is not None:
            self._retired.append(cache)
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

    async def wake(self, key: SessionKey) -> bool:
        """Bring a spilled cache back; False if there is no room for it now."""
        cache = self._caches[key]
        if not cache.is_away:
            return True
        is_back = await self.executor.call(lambda: self.pool.restore(cache))
        if not is_back:
            self.is_short.set()
        return is_back

    async def put_aside(self, key: SessionKey, is_idle: Callable[[], bool]) -> bool:
        """Spill a session's cache if it is still idle; False if not, or if there is no place on disk."""
        cache = self._caches[key]
        is_aside = await self.executor.call(lambda: self.pool.spill(cache, is_idle))
        self.freed.set()
        return is_aside

    def empty(self, key: SessionKey) -> None:
        """Throw an idle session's cache away; its client will replay."""
        old = self._caches[key]
        self._caches[key] = self.pool.open(old.span)
        self._retired.append(old)

    def _keep(self, key: SessionKey, cache: SessionCache) -> Callable[[int], int]:
        self._caches[key] = cache
        return lambda position: self._grant(key, position)

    def _grant(self, key: SessionKey, position: int) -> int:
        cache = self._caches[key]
        if cache.is_away:
            return position if self.pool.free_tokens(len(cache.span)) >= position else 0
        if not self.pool.reserve(cache, position):
            self.is_short.set()
        return self.pool.reserved(cache)
