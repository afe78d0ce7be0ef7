"""KV caches of all sessions on this server: who may use how many pages, and where the tensors go.

The counting (kv_pages) is integers under a lock that is never held while a file is written or read: it may
be done from the event loop. Tensors are touched by the thread that runs the batches alone, which is where
`spill`, `restore`, `export_pages` and `import_pages` belong; a fork only takes views (kv_extents).

Blocks with a window keep what a step can read that begins at most ROLLBACK_TOKENS before the newest one; a
session that goes back further has to start anew (docs/decisions/0007-windows-forget.md).
"""

import threading
from collections.abc import Callable, Mapping, Sequence

from server.kv_extents import Pair, restored
from server.kv_pages import PageCount, SessionCache
from server.kv_spill import SpillStore
from swarm.errors import MurmurError
from swarm.wire.blocks import Span

__all__ = ["PAGE_TOKENS", "ROLLBACK_TOKENS", "KVFull", "KVGone", "KVPool", "SessionCache"]

PAGE_TOKENS = 16
ROLLBACK_TOKENS = 2048
"""How far a session may go back in blocks with a window: what a client has in flight above its commit."""


class KVFull(MurmurError):
    """There are no free pages now: the session waits, or is answered `busy`. Nothing has changed."""


class KVGone(ValueError):
    """A step would go on from keys that are not here any more: only position 0 is left."""


class KVLost(KVGone):
    """All that a session had is gone, not only what this step needs."""


class KVPool:
    """All KV memory of a server, counted in pages."""

    def __init__(
        self,
        capacity_tokens: int,
        *,
        page_tokens: int = PAGE_TOKENS,
        spill_to: SpillStore | None = None,
        windows: Mapping[int, int] | None = None,
        rollback_tokens: int = ROLLBACK_TOKENS,
    ) -> None:
        """Have room for `capacity_tokens` tokens of one block each (tokens x blocks).

        `windows` says how many keys rows see in those blocks where they do not see all.
        """
        self.page_tokens = page_tokens
        self.capacity_pages = capacity_tokens // page_tokens
        self._pages = PageCount(self.capacity_pages, page_tokens)
        self._spill_to = spill_to
        self._windows = windows or {}
        self._rollback_tokens = rollback_tokens
        self._lock = threading.RLock()

    @property
    def capacity(self) -> int:
        """Tokens x blocks that fit in all."""
        return self.capacity_pages * self.page_tokens

    @property
    def pages_in_use(self) -> int:
        """Pages held by sessions, shared ones counted once."""
        return self._pages.in_use

    def free_tokens(self, num_blocks: int) -> int:
        """Tokens that one more session over `num_blocks` blocks could cache now."""
        return self._pages.free // num_blocks * self.page_tokens

    def open(self, span: Span) -> SessionCache:
        """Return an empty cache for a session over `span`; it holds no pages yet."""
        windows = tuple(self._windows.get(block, 0) for block in range(span.start, span.end))
        return SessionCache(span, windows, layers=[None] * len(span))

    def reserved(self, cache: SessionCache) -> int:
        """Positions `[0, reserved)` have pages."""
        pages = cache.own_pages + self._pages.left_behind(cache, cache.shared_tokens)
        return cache.shared_tokens + pages // len(cache.span) * self.page_tokens

    def reserve(self, cache: SessionCache, position: int) -> bool:
        """Take pages for positions `[0, position)`; False, with nothing changed, if they are short.

        Never gives pages back, whatever `position` is. A cache that is closed or spilled gets none.
        """
        with self._lock:
            if cache.is_closed or cache.is_away:
                return False
            return self._pages.take(cache, self._own_needed(cache, position))

    def release_above(self, cache: SessionCache, position: int) -> None:
        """Give back the pages that neither `[0, position)` nor what is cached needs.

        Memory of a much longer past is freed by the next write, which moves what is left.
        """
        with self._lock:
            if cache.is_away:
                return
            position = max(position, cache.used)
            self._pages.keep(cache, self._own_needed(cache, position))
            for extent in cache.layers:
                if extent is not None and extent.end - extent.first > 2 * (position - extent.first):
                    extent.frozen = extent.end

    def begin_write(self, cache: SessionCache, position: int, end: int) -> None:
        """Make `[position, end)` writable: roll back to `position`, leave shared pages, take new ones.

        Raises KVFull if pages are short, KVGone if `position` is too far back, ValueError if it is above
        what is cached, or if the cache is closed or spilled. Then nothing has changed.
        """
        with self._lock:
            _check_usable(cache, position)
            self._pages.absorb(cache)
            shared_tokens = min(cache.shared_tokens, self._pages.whole(position))
            lowest = max(cache.lowest, position - self._rollback_tokens) if any(cache.windows) else 0
            lowest = min(lowest, position)  # who starts anew may go anywhere
            if not self._pages.take(cache, self._pages.needed(cache, shared_tokens, end, lowest)):
                raise KVFull("all KV pages of this server are in use")
            self._pages.share_less(cache, shared_tokens)
            cache.used, cache.lowest = position, lowest

    def fork(self, parent: SessionCache, position: int) -> SessionCache | None:
        """Return a session that starts with the parent's `[0, position)`; None if that cannot be now.

        It cannot while pages are short or the parent is spilled, nor where a window has forgotten.

        Whole pages are shared and never copied, unless the parent itself is a fork: then its own pages
        between its prefix and `position` are copied when the child first writes.
        Raises ValueError if `position` is above what the parent has cached, or it is closed.
        """
        with self._lock:
            if parent.is_away or 0 < position < parent.lowest:
                return None
            _check_usable(parent, position)
            self._pages.absorb(parent)
            lowest = min(parent.lowest, position)
            child = SessionCache(parent.span, parent.windows, used=position, lowest=lowest)
            limit = position if parent.shared is None else min(position, parent.shared_tokens)
            shared_tokens = self._pages.whole(limit)
            if not self._pages.take(child, self._pages.needed(child, shared_tokens, position)):
                return None
            self._pages.share(parent, child, shared_tokens)
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
            self._pages.keep(cache, 0)
            self._pages.share_less(cache, 0)
            cache.layers = []
            spilled, cache.spilled = cache.spilled, None
        if spilled is not None:
            spilled.close()

    @property
    def progress(self) -> int:
        """Grows while something is spilled or restored. From any thread."""
        return self._spill_to.progress if self._spill_to else 0

    def spill(self, cache: SessionCache, is_idle: Callable[[], bool] = lambda: True) -> bool:
        """Write the session's own pages to disk and free them; False if that is not possible.

        Nothing is done if the session is not idle any more: `is_idle` is asked under the lock that a step
        takes before it writes. Shared pages stay where they are. Waits for the disk: compute thread only.
        """
        with self._lock:
            if self._spill_to is None or cache.is_closed or cache.is_away or not is_idle():
                return False
            self._pages.absorb(cache)
            cache.is_away = True
            first, layers = cache.shared_tokens, cache.layers
        last = cache.used
        spilled = self._spill_to.write(
            [None if each is None else each.view(max(first, each.first), last) for each in layers]
        )
        with self._lock:
            cache.is_away = spilled is not None
            if spilled is None or cache.is_closed:
                cache.is_away = False
            else:
                cache.layers = [each and each.emptied(first) for each in layers]
                cache.spilled, spilled = spilled, None
                self._pages.keep(cache, 0)
        if spilled is not None:
            spilled.close()
        return cache.is_away

    def restore(self, cache: SessionCache) -> bool:
        """Bring a spilled session back, bit for bit; False if pages are short (it stays spilled).

        True if it was not spilled. Waits for the disk: compute thread only. Raises OSError if it cannot be
        read; the cache is of no use then.
        """
        with self._lock:
            spilled = cache.spilled
            if cache.is_closed or spilled is None:
                return not cache.is_closed
            if not self._pages.take(cache, self._own_needed(cache, cache.used)):
                return False
            cache.spilled = None
        try:
            pairs = spilled.read()
        finally:
            spilled.close()
        with self._lock:
            if cache.is_closed:
                return False
            for layer, pair in enumerate(pairs):
                if pair is not None:
                    first = cache.used - pair[0].shape[1]
                    cache.layers[layer] = restored(cache.layers[layer], pair, first)
            cache.is_away = False
        return True

    def export_pages(self, cache: SessionCache, position: int, start: int = 0) -> list[Pair]:
        """Return keys and values `[kv_heads, position - start, dim]` per block, contiguous copies.

        What a block's window has forgotten is zeros: no step from `position` on reads it. Raises ValueError
        if `position` is above what is cached, or too far back. Compute thread only.
        """
        _check_usable(cache, position)
        if not 0 <= start <= position:
            raise ValueError(f"cannot export positions {start}:{position}")
        return [extent.padded(start, position) for extent in cache.layers if extent is not None]

    def import_pages(
        self, cache: SessionCache, pages: Sequence[Pair], start: int = 0, *, like: Sequence[Pair]
    ) -> None:
        """Cache `pages`, one pair per block as `export_pages` gives them, at `start`.

        `like` is what one token takes in each block, as `SpanModel.kv_layout` says: pages may come from the
        network. With windows, no step may begin below their end: whoever sent them may have forgotten what
        it would read. Raises KVFull, or ValueError if they do not fit. Compute thread only.
        """
        tokens = pages[0][0].shape[1] if pages and pages[0][0].dim() == 3 else 0
        if len(pages) != len(cache.span) or not all(map(_is_like, pages, like)):
            raise ValueError("these KV pages are not those of these blocks")
        if any(half.shape[1] != tokens for pair in pages for half in pair):
            raise ValueError("KV pages of all blocks must hold the same tokens")
        self.begin_write(cache, start, start + tokens)
        for layer, (keys, values) in enumerate(pages):
            cache.write(layer, start, keys, values)
        cache.used = start + tokens
        cache.lowest = cache.used if any(cache.windows) else 0

    def pages_for(self, cache: SessionCache, position: int) -> int:
        """Return how many own pages `[0, position)` takes."""
        return self._own_needed(cache, position)

    def could_hold(self, cache: SessionCache, position: int) -> bool:
        """Tell whether there are pages for all of `[0, position)` that a spilled session does not share."""
        return self._own_needed(cache, position) <= self._pages.free

    def _own_needed(self, cache: SessionCache, position: int) -> int:
        return self._pages.needed(cache, cache.shared_tokens, position)


def _check_usable(cache: SessionCache, position: int) -> None:
    if cache.is_closed or cache.is_away:
        raise ValueError("the KV cache is closed or spilled")
    if not 0 <= position <= cache.used:
        raise ValueError(f"position {position} is above the {cache.used} cached tokens")
    if 0 < position < cache.lowest:
        raise KVGone(f"the keys that a step at {position} reads are gone; {cache.lowest} is the lowest")


def _is_like(pair: Pair, like: Pair) -> bool:
    """Tell whether `pair` has the dimensions and dtypes of `like`, whatever the number of tokens."""
    return all(
        half.dim() == 3 and half.shape[::2] == model.shape[::2] and half.dtype == model.dtype
        for half, model in zip(pair, like, strict=True)
    )
