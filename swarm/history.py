"""What a session has been told so far, as names: a tag per position, and where steps ended."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

from swarm.wire.tags import TagChain, pack_boundaries

MAX_INSIDE = 4096
"""So many ranges a ticket names; a position of older ones is taken for a boundary, which costs time alone."""


class History:
    """Tags of every position and the step boundaries at which hops know them."""

    def __init__(self, chain: TagChain) -> None:
        self._chain = chain
        self._boundaries = [0]

    @classmethod
    def of(cls, key: bytes, labels: Sequence[int], inside: Sequence[tuple[int, int]] = ()) -> "History":
        """The history of known labels: every position may be a boundary but those `inside` of steps."""
        history = cls(TagChain(key))
        history._chain.append(labels)
        no_boundary = {at for start, end in inside for at in range(max(1, start), min(end, len(labels)))}
        history._boundaries = [at for at in range(len(labels) + 1) if at not in no_boundary]
        return history

    def __len__(self) -> int:
        return len(self._chain)

    @property
    def key(self) -> bytes:
        """Key of the rolling hash; a fork keeps it."""
        return self._chain.key

    def tag(self, position: int) -> int:
        """Name of the first `position` tokens."""
        return self._chain.tag(position)

    def append(self, labels: Sequence[int]) -> None:
        """Add the tokens of one step."""
        self._chain.append(labels)
        self.mark(len(self))

    def truncate(self, position: int) -> None:
        """Forget what lies above `position`."""
        self._chain.truncate(position)
        while self._boundaries[-1] > position:
            self._boundaries.pop()
        self.mark(position)

    def fork(self, position: int) -> "History":
        """The first `position` tokens, under the same names."""
        child = History(self._chain.fork(position))
        child._boundaries = [at for at in self._boundaries if at < position]
        child.mark(position)
        return child

    def boundary_below(self, position: int) -> int:
        """The last boundary that is not above `position`: where a hop can fork."""
        return self._boundaries[bisect_right(self._boundaries, position) - 1]

    def inside(self) -> tuple[tuple[int, int], ...]:
        """The ranges `[start, end)` of positions that are no boundaries, the newest MAX_INSIDE of them."""
        found = ((one + 1, after) for one, after in pairwise(self._boundaries) if after > one + 1)
        return tuple(found)[-MAX_INSIDE:]

    def packed(self) -> tuple[bytes, bytes]:
        """Boundaries and their tags as Bind carries them."""
        return pack_boundaries(self._chain, self._boundaries)

    def mark(self, position: int) -> None:
        """Note that a hop may come to know the tag at `position`: a part that is replayed ends there."""
        index = bisect_left(self._boundaries, position)
        if self._boundaries[index : index + 1] != [position]:
            self._boundaries.insert(index, position)
