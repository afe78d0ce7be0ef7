"""Counting KV pages: who holds how many, what is shared, what is left. Integers, no tensors.

A page is `page_tokens` tokens of one block. With pages of 16 tokens and 2 blocks, a session of 40 tokens
holds 6 pages; a fork at 35 turns 4 of them into a shared prefix of 32 tokens, counted once for all its
holders, and takes 2 pages of its own for the rest.

A block with a window gives back what no step can read again. With a window of 100 tokens in one of the 2
blocks, a session that can go back to position 300 needs no key below 201 there: it has given back 12 pages.
"""

from dataclasses import dataclass, field

from torch import Tensor

from server.kv_extents import Extent, new_extent
from server.kv_spill import SpilledPages
from swarm.wire.blocks import Span


@dataclass(slots=True, eq=False)
class SharedPrefix:
    """Pages of the first positions of several sessions, which all read and none may write."""

    pages: int
    holders: int


@dataclass(slots=True, eq=False)
class SessionCache:
    """The KV cache of one session on one span. Made and changed by `KVPool` and the running batch."""

    span: Span
    windows: tuple[int, ...]
    """How many keys a row sees in each layer, its own included; 0 for all."""
    used: int = 0
    """Positions `[0, used)` are cached in every layer; a step may begin at 0, or at `lowest` to `used`."""
    lowest: int = 0
    """The first position, beside 0, whose rows find all the keys that they see in layers with a window."""
    own_pages: int = 0
    shared: SharedPrefix | None = None
    shared_tokens: int = 0
    """How much of the shared prefix this session still reads: whole pages."""
    layers: list[Extent | None] = field(default_factory=list)
    spilled: SpilledPages | None = None
    is_away: bool = False
    """It is spilled, or on its way to or from the disk."""
    is_closed: bool = False

    def floor(self, layer: int) -> int | None:
        """First position that `layer` needs if it has a window, else None."""
        window = self.windows[layer]
        return max(0, self.lowest - window + 1) if window else None

    def write(self, layer: int, position: int, keys: Tensor, values: Tensor) -> Extent:
        """Cache `keys` and `values` [kv_heads, tokens, dim] of block `span.start + layer` at `position`.

        Whatever was cached at and above `position` is thereby gone. Compute thread only. Copies older
        tokens only when the extent is full, or when others see what would be overwritten.
        """
        extent = self.room(layer, position, keys, values)
        extent.write(position, keys, values)
        return extent

    def room(self, layer: int, position: int, keys: Tensor, values: Tensor) -> Extent:
        """Return where `write` would write: whoever asks writes all of them there himself."""
        extent = self.layers[layer]
        end = position + keys.shape[1]
        if extent is None:
            extent = self.layers[layer] = new_extent(keys, values)
        elif not extent.can_write(position, end):
            shared = min(self.shared_tokens, position)
            extent = self.layers[layer] = extent.moved(shared, position, end, self.floor(layer))
        return extent


class PageCount:
    """How many pages there are and who holds them. Not for several threads at once: the pool locks."""

    def __init__(self, capacity_pages: int, page_tokens: int) -> None:
        self.capacity = capacity_pages
        self.page_tokens = page_tokens
        self.in_use = 0

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return self.capacity - self.in_use

    def whole(self, tokens: int) -> int:
        """Return the part of `tokens` that fills whole pages."""
        return tokens // self.page_tokens * self.page_tokens

    def needed(self, cache: SessionCache, start: int, end: int, lowest: int | None = None) -> int:
        """Return the pages that `[start, end)` takes, where `start` is a page's first position.

        `lowest` stands for the cache's own if given.
        """
        if end <= start:
            return 0
        pages = -(-(end - start) // self.page_tokens) * len(cache.span)
        return max(0, pages - self.left_behind(cache, start, lowest))

    def left_behind(self, cache: SessionCache, start: int, lowest: int | None = None) -> int:
        """Return the pages from `start` on that layers with a window do not need any more."""
        lowest = cache.lowest if lowest is None else lowest
        floors = (self.whole(lowest - window + 1) for window in cache.windows if 0 < window <= lowest)
        return sum(max(0, floor - start) // self.page_tokens for floor in floors)

    def take(self, cache: SessionCache, own_pages: int) -> bool:
        """Let `cache` have at least `own_pages`; False, with nothing changed, if they are short."""
        more = own_pages - cache.own_pages
        if more > max(0, self.free):
            return False
        if more > 0:
            cache.own_pages += more
            self.in_use += more
        return True

    def keep(self, cache: SessionCache, own_pages: int) -> None:
        """Give back what `cache` has above `own_pages` of its own."""
        excess = max(0, cache.own_pages - own_pages)
        cache.own_pages -= excess
        self.in_use -= excess

    def share(self, parent: SessionCache, child: SessionCache, tokens: int) -> None:
        """Let `child` hold the first `tokens`, whole pages, of `parent` with it."""
        if not tokens:
            return
        if parent.shared is None:
            pages = self.needed(parent, 0, tokens)
            parent.own_pages -= pages
            parent.shared = SharedPrefix(pages, holders=1)
            parent.shared_tokens = tokens
        child.shared = parent.shared
        child.shared_tokens = tokens
        child.shared.holders += 1

    def share_less(self, cache: SessionCache, tokens: int) -> None:
        """Use only the first `tokens` of the shared prefix; the last one to leave it frees its pages."""
        cache.shared_tokens = tokens
        if cache.shared is None or tokens:
            return
        cache.shared.holders -= 1
        if not cache.shared.holders:
            self.in_use -= cache.shared.pages
        cache.shared = None

    def absorb(self, cache: SessionCache) -> None:
        """Make the prefix the session's own again if nobody else is left and it lies in its own extents."""
        if cache.shared is None or cache.shared.holders > 1:
            return
        if all(extent is None or extent.prefix is None for extent in cache.layers):
            cache.own_pages += cache.shared.pages
            cache.shared = None
            cache.shared_tokens = 0
