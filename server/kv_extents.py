"""The tensors of one layer of one session: a growing extent, and at most one read-only prefix before it.

Keys and values of positions `[start, start + capacity)` lie in two contiguous tensors
`[kv_heads, capacity, head_dim]`; those of `[0, start)` may be views of somebody else's extent, shared by
a fork. Example: a session of 600 tokens, forked at 520 with pages of 16 tokens, gives the child a
prefix view of `[0, 512)` and an extent that starts at 512 and holds 8 copied tokens.

A layer with a window needs no position below some floor. Whenever its extent moves, what is older stays
behind: with a floor of 700, an extent that moves at 1,000 starts at 700 and has no prefix.

Who may use which pages is decided in kv_cache; here nothing is counted.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""Keys `[kv_heads, tokens, key_dim]` and values `[kv_heads, tokens, value_dim]`."""

GROWTH = 1.5
MIN_CAPACITY_TOKENS = 32
WINDOW_SPARE_TOKENS = 256
"""What an extent of a layer with a window has room for when it has moved, and what it keeps too long at most.

It copies its window once in so many tokens: a 256th of what attention reads."""


@dataclass(slots=True, eq=False)
class Extent:
    """Keys and values of one layer; replaced as a whole when it moves.

    Only `frozen` (and what is kept of `addresses`) changes in place: a fork, made by another thread while a
    layer is being moved, thus sees one consistent extent, the old one or the new one.
    """

    keys: Tensor
    values: Tensor
    start: int
    prefix: Pair | None
    frozen: int
    """Positions below this are seen by others (or are others'): never written in place."""
    _addresses: tuple[int, ...] = field(default=(), init=False)

    @property
    def first(self) -> int:
        """First position that is held, here or in the prefix."""
        return self.start if self.prefix is None else self.start - self.prefix[0].shape[1]

    @property
    def end(self) -> int:
        """First position for which there is no room."""
        return self.start + self.keys.shape[1]

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where a kernel finds this: `first`, `start`, then of the own and of the shared keys and values the
        address, and the numbers from one head to the next. A head's tokens lie one after the other."""
        if not self._addresses:
            shared_keys, shared_values = self.prefix or (self.keys, self.values)
            halves = (self.keys, self.values, shared_keys, shared_values)
            places = (number for half in halves for number in (half.data_ptr(), half.stride(0)))
            self._addresses = (self.first, self.start, *places)
        return self._addresses

    def can_write(self, position: int, end: int) -> bool:
        """Tell whether `[position, end)` can be written in place."""
        return self.frozen <= position and self.start <= position and end <= self.end

    def write(self, position: int, keys: Tensor, values: Tensor) -> None:
        """Write `keys` and `values` [kv_heads, tokens, dim] at `position`; `can_write` has said yes."""
        first = position - self.start
        last = first + keys.shape[1]
        self.keys[:, first:last].copy_(keys)
        self.values[:, first:last].copy_(values)

    def parts(self, end: int) -> tuple[Pair, ...]:
        """Return views of positions `[first, end)`, in order: one pair, or the prefix and the rest."""
        own = (self.keys[:, : end - self.start], self.values[:, : end - self.start])
        return (own,) if self.prefix is None else (self.prefix, own)

    def view(self, first: int, last: int) -> Pair:
        """Return positions `[first, last)` as one pair; a copy only where they cross the prefix's end."""
        if first >= last:
            return _cut((self.keys, self.values), 0, 0)
        if self.prefix is None or first >= self.start:
            return _cut((self.keys, self.values), first - self.start, last - self.start)
        if last <= self.start:
            return _cut(self.prefix, first - self.first, last - self.first)
        old_keys, old_values = _cut(self.prefix, first - self.first, self.start - self.first)
        keys, values = _cut((self.keys, self.values), 0, last - self.start)
        return torch.cat((old_keys, keys), 1), torch.cat((old_values, values), 1)

    def padded(self, first: int, last: int) -> Pair:
        """Return a copy of positions `[first, last)`, zeros where they are not held any more."""
        held = min(max(first, self.first), last)
        keys, values = (
            half.new_zeros((half.shape[0], last - first, half.shape[2])) for half in self.view(0, 0)
        )
        keys[:, held - first :], values[:, held - first :] = self.view(held, last)
        return keys, values

    def fork(self, shared: int, position: int) -> "Extent":
        """Return an extent that shows `[0, position)`, of which `[0, shared)` stays shared.

        Copies nothing: the child copies `[shared, position)` when it first writes.
        """
        start = min(max(shared, self.first), position)
        keys, values = self.view(start, position)
        self.frozen = max(self.frozen, position)
        return Extent(keys, values, start, self._prefix(self.first, start), frozen=position)

    def emptied(self, shared: int) -> "Extent | None":
        """Return an extent of the shared prefix alone, with no memory of its own; None without a prefix."""
        prefix = self._prefix(self.first, shared)
        if prefix is None:
            return None
        no_keys, no_values = (half.new_empty((half.shape[0], 0, half.shape[2])) for half in self.view(0, 0))
        return Extent(no_keys, no_values, start=shared, prefix=prefix, frozen=shared)

    def moved(self, shared: int, position: int, end: int, floor: int | None = None) -> "Extent":
        """Return a new extent for `[shared, end)` and more that holds a copy of `[shared, position)`.

        With a `floor`, that of a layer with a window, positions below it stay behind, shared ones too.
        """
        start = min(max(shared, self.first, floor or 0), position)
        old_keys, old_values = self.view(start, position)
        if floor is not None:
            capacity = end - start + WINDOW_SPARE_TOKENS
        else:
            grown = int(self.keys.shape[1] * GROWTH) if end > self.end else 0
            capacity = max(end - start, grown, MIN_CAPACITY_TOKENS)
        prefix = self._prefix(max(self.first, floor or 0), min(shared, start))
        new = Extent(_room(old_keys, capacity), _room(old_values, capacity), start, prefix, frozen=start)
        if position > start:
            new.write(start, old_keys, old_values)
        return new

    def _prefix(self, first: int, last: int) -> Pair | None:
        return self.view(first, last) if first < last else None


def new_extent(keys: Tensor, values: Tensor) -> Extent:
    """Return an empty extent with room for what `keys` and `values` hold."""
    capacity = max(keys.shape[1], MIN_CAPACITY_TOKENS)
    return Extent(_room(keys, capacity), _room(values, capacity), start=0, prefix=None, frozen=0)


def restored(emptied: Extent | None, pair: Pair, position: int) -> Extent:
    """Return an extent that holds `pair` from `position` on, behind the prefix that was left in memory."""
    prefix = None if emptied is None or emptied.start != position else emptied.prefix
    keys, values = pair
    capacity = max(keys.shape[1], MIN_CAPACITY_TOKENS)
    new = Extent(_room(keys, capacity), _room(values, capacity), position, prefix, frozen=position)
    new.write(position, keys, values)
    return new


def _room(like: Tensor, capacity: int) -> Tensor:
    return like.new_empty((like.shape[0], capacity, like.shape[2]))


def _cut(pair: Pair, first: int, last: int) -> Pair:
    return pair[0][:, first:last], pair[1][:, first:last]
