"""KV caches of all sessions on this server: who holds how many pages, and where the tensors are.

A page is `page_tokens` tokens of one block; capacity, reservations and shares are counted in pages.
The counting is integers under a lock and may be done from the event loop. Tensors are touched by
the thread that runs the batches alone; a fork only takes views and copies nothing (see kv_extents).

What a session holds: pages of its own, and perhaps a share of one `SharedPrefix`, which is counted
once for all its holders. With pages of 16 tokens and 2 blocks, a session of 40 tokens holds 6 pages; a fork
at 35 turns 4 of them into a shared prefix of 32 tokens and takes 2 pages of its own for the rest.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from server.kv_extents import Extent, Pair, new_extent
from server.kv_spill import SpilledPages, SpillStore
from swarm.errors import MurmurError
from swarm.wire.blocks import Span

PAGE_TOKENS = 16


class KVFull(MurmurError):
    """There are no free pages now: the session waits, or is answered `busy`. Nothing has changed."""


@dataclass(slots=True, eq=False)
class SharedPrefix:
    """Pages of the first `tokens` positions that several sessions read and none may write."""

    tokens: int
    pages: int
    holders: int


@dataclass(slots=True, eq=False)
class SessionCache:
    """The KV cache of one session on one span. Made and changed by `KVPool` and the running batch."""

    span: Span
    used: int = 0
    """Positions `[0, used)` are cached in every layer; a step may begin at any of them, or at `used`."""
    own_pages: int = 0
    shared: SharedPrefix | None = None
    shared_tokens: int = 0
    layers: list[Extent | None] = field(default_factory=list)
    spilled: SpilledPages | None = None
    is_closed: bool = False

    def write(self, layer: int, position: int, keys: Tensor, values: Tensor) -> Extent:
        """Cache `keys` and `values` [kv_heads, tokens, dim] of block `span.start + layer` at `position`.

        Whatever was cached at and above `position` is thereby gone. Compute thread only. Copies older
        tokens only when the extent is full, or when others see what would be overwritten.
        """
        extent = self.layers[layer]
        end = position + keys.shape[1]
        if extent is None:
            extent = self.layers[layer] = new_extent(keys, values)
        elif not extent.can_write(position, end):
            extent = self.layers[layer] = extent.moved(min(self.shared_tokens, position), position, end)
        extent.write(position, keys, values)
        return extent


class KVPool:
    """All KV memory of a server, counted in pages."""

    def __init__(
        self, capacity_tokens: int, *, page_tokens: int = PAGE_TOKENS, spill_to: SpillStore | None = None
    ) -> None:
        """Have room for `capacity_tokens` tokens of one block each (tokens x blocks)."""
        self.page_tokens = page_tokens
        self.capacity_pages = capacity_tokens // page_tokens
        self._pages_in_use = 0
        self._spill_to = spill_to
        self._lock = threading.RLock()

    @property
    def capacity(self) -> int:
        """Tokens x blocks that fit in all."""
        return self.capacity_pages * self.page_tokens

    @property
    def pages_in_use(self) -> int:
        """Pages held by sessions, shared ones counted once."""
        return self._pages_in_use

    def free_tokens(self, num_blocks: int) -> int:
        """Tokens that one more session over `num_blocks` blocks could cache now."""
        return (self.capacity_pages - self._pages_in_use) // num_blocks * self.page_tokens

    def open(self, span: Span) -> SessionCache:
        """Return an empty cache for a session over `span`; it holds no pages yet."""
        return SessionCache(span, layers=[None] * len(span))

    def reserved(self, cache: SessionCache) -> int:
        """Positions `[0, reserved)` have pages."""
        return cache.shared_tokens + cache.own_pages // len(cache.span) * self.page_tokens

    def reserve(self, cache: SessionCache, position: int) -> bool:
        """Take pages for positions `[0, position)`; False, with nothing changed, if they are short.

        Never gives pages back, whatever `position` is.
        """
        with self._lock:
            if cache.is_closed:
                return False
            return self._take(cache, self._pages_for(cache, position) - cache.own_pages)

    def release_above(self, cache: SessionCache, position: int) -> None:
        """Give back the pages that neither `[0, position)` nor what is cached needs.

        Memory of a much longer past is freed by the next write, which moves what is left.
        """
        with self._lock:
            needed = self._pages_for(cache, max(position, cache.used))
            if cache.own_pages <= needed or cache.spilled is not None:
                return
            self._give_back(cache, cache.own_pages - needed)
            for extent in cache.layers:
                if extent is not None and extent.end > 2 * max(position, cache.used):
                    extent.frozen = extent.end

    def begin_write(self, cache: SessionCache, position: int, end: int) -> None:
        """Make `[position, end)` writable: roll back to `position`, leave shared pages, take new ones.

        Raises KVFull if pages are short, ValueError if `position` is above what is cached, or if the
        cache is closed or spilled.
        """
        with self._lock:
            if cache.is_closed or cache.spilled is not None:
                raise ValueError("the KV cache is closed or spilled")
            if not 0 <= position <= cache.used:
                raise ValueError(f"position {position} is above the {cache.used} cached tokens")
            self._absorb(cache)
            shared_tokens = min(cache.shared_tokens, self._whole_pages(position))
            needed = self._pages(cache.span, end - shared_tokens)
            if not self._take(cache, needed - cache.own_pages):
                raise KVFull("all KV pages of this server are in use")
            self._share_less(cache, shared_tokens)
            cache.used = position

    def fork(self, parent: SessionCache, position: int) -> SessionCache | None:
        """Return a session that starts with the parent's `[0, position)`; None if pages are short.

        Whole pages are shared and never copied, unless the parent itself is a fork: then its own pages
        between its prefix and `position` are copied when the child first writes.
        Raises ValueError if `position` is above what the parent has cached, or it is closed or spilled.
        """
        with self._lock:
            if parent.is_closed or parent.spilled is not None or not 0 <= position <= parent.used:
                raise ValueError(f"cannot fork {parent.used} cached tokens at {position}")
            self._absorb(parent)
            child = SessionCache(parent.span, used=position)
            limit = parent.used if parent.shared is None else parent.shared_tokens
            shared_tokens = self._whole_pages(min(position, limit))
            if not self._take(child, self._pages(child.span, position - shared_tokens)):
                return None
            self._share(parent, child, shared_tokens)
            child.layers = [
                None if extent is None else extent.fork(shared_tokens, position) for extent in parent.layers
            ]
            return child

    def close(self, cache: SessionCache) -> None:
        """Give back everything that `cache` holds. Closing again does nothing."""
        with self._lock:
            if cache.is_closed:
                return
            cache.is_closed = True
            self._give_back(cache, cache.own_pages)
            self._share_less(cache, 0)
            cache.layers = []
            if cache.spilled is not None:
                cache.spilled.close()
                cache.spilled = None

    def spill(self, cache: SessionCache) -> bool:
        """Write the session's own pages to disk and free them; False if that is not possible.

        Shared pages stay where they are. Blocks on the disk: compute thread, or a test.
        """
        with self._lock:
            if self._spill_to is None or cache.is_closed or cache.spilled is not None:
                return False
            self._absorb(cache)
            first, last = cache.shared_tokens, cache.used
            pairs = [None if extent is None else extent.view(first, last) for extent in cache.layers]
            cache.spilled = self._spill_to.write(pairs)
            if cache.spilled is None:
                return False
            cache.layers = [None if extent is None else extent.emptied(first) for extent in cache.layers]
            self._give_back(cache, cache.own_pages)
            return True

    def restore(self, cache: SessionCache) -> bool:
        """Bring a spilled session back, bit for bit; False if pages are short (it stays spilled)."""
        with self._lock:
            if cache.is_closed:
                return False
            if cache.spilled is None:
                return True
            if not self._take(cache, self._pages_for(cache, cache.used)):
                return False
            for layer, pair in enumerate(cache.spilled.read()):
                if pair is not None:
                    cache.write(layer, cache.shared_tokens, *pair)
            cache.spilled.close()
            cache.spilled = None
            return True

    def export_pages(self, cache: SessionCache, position: int, start: int = 0) -> list[Pair]:
        """Return keys and values `[kv_heads, position - start, dim]` per block, contiguous copies.

        Raises ValueError if `position` is above what is cached. Compute thread only.
        """
        if cache.is_closed or cache.spilled is not None or not 0 <= start <= position <= cache.used:
            raise ValueError(f"cannot export {start}:{position} of {cache.used} cached tokens")
        views = [extent.view(start, position) for extent in cache.layers if extent is not None]
        return [(keys.clone(), values.clone()) for keys, values in views]

    def import_pages(self, cache: SessionCache, pages: Sequence[Pair], start: int = 0) -> None:
        """Cache `pages`, one pair per block as `export_pages` gives them, at `start`.

        Raises KVFull, or ValueError if they do not fit the cache. Compute thread only.
        """
        if len(pages) != len(cache.span) or len({half.shape[1] for pair in pages for half in pair}) != 1:
            raise ValueError("pages need one pair per block, all with the same number of tokens")
        end = start + pages[0][0].shape[1]
        self.begin_write(cache, start, end)
        for layer, (keys, values) in enumerate(pages):
            cache.write(layer, start, keys, values)
        cache.used = end

    def _pages(self, span: Span, tokens: int) -> int:
        return max(0, -(-tokens // self.page_tokens)) * len(span)

    def _pages_for(self, cache: SessionCache, position: int) -> int:
        return self._pages(cache.span, position - cache.shared_tokens)

    def _whole_pages(self, tokens: int) -> int:
        return tokens // self.page_tokens * self.page_tokens

    def _take(self, cache: SessionCache, pages: int) -> bool:
        if pages > self.capacity_pages - self._pages_in_use:
            return pages <= 0
        pages = max(0, pages)
        cache.own_pages += pages
        self._pages_in_use += pages
        return True

    def _give_back(self, cache: SessionCache, pages: int) -> None:
        cache.own_pages -= pages
        self._pages_in_use -= pages

    def _share(self, parent: SessionCache, child: SessionCache, tokens: int) -> None:
        """Let `child` hold the first `tokens` of the parent; makes them a shared prefix if need be."""
        if not tokens:
            return
        if parent.shared is None:
            pages = self._pages(parent.span, tokens)
            parent.own_pages -= pages
            parent.shared = SharedPrefix(tokens, pages, holders=1)
            parent.shared_tokens = tokens
        child.shared = parent.shared
        child.shared_tokens = tokens
        child.shared.holders += 1

    def _share_less(self, cache: SessionCache, tokens: int) -> None:
        """Use only the first `tokens` of the shared prefix; the last one to leave it frees its pages."""
        cache.shared_tokens = tokens
        if cache.shared is None or tokens:
            return
        cache.shared.holders -= 1
        if not cache.shared.holders:
            self._pages_in_use -= cache.shared.pages
        cache.shared = None

    def _absorb(self, cache: SessionCache) -> None:
        """Make the prefix the session's own again if nobody else is left and it lies in its own extent."""
        if cache.shared is None or cache.shared.holders > 1:
            return
        if all(extent is None or not extent.start for extent in cache.layers):
            cache.own_pages += cache.shared.pages
            cache.shared = None
            cache.shared_tokens = 0
