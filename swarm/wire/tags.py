"""What a cache holds, said as (position, tag): a keyed rolling hash over the history, never a length.

Two caches of equal length can hold different histories: one hop came back from the dead, another missed a
rollback. The client therefore labels every token of a session (its id, or a fresh number for a hidden
state) and hashes the labels; hops only store and compare what the client computed.
"""

import hashlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable

_LABEL = struct.Struct("<QQ")
_MASK = 2**63 - 1
MAX_SENT_BOUNDARIES = 1 << 16


class TagChain:
    """The client's half: a tag for every position of one session's history.

    `chain.tag(0)` is 0, `chain.tag(3)` names the first three labels. A fork starts from a copy, with the
    parent's key, so that what both share has the same names.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._tags = array("Q", [0])

    def __len__(self) -> int:
        return len(self._tags) - 1

    def tag(self, position: int) -> int:
        """Name of the first `position` labels."""
        return self._tags[position]

    def append(self, labels: Iterable[int]) -> None:
        """Add labels, each an int in `[0, 2**64)`."""
        last = self._tags[-1]
        for label in labels:
            digest = hashlib.blake2b(_LABEL.pack(last, label), digest_size=8, key=self.key).digest()
            last = int.from_bytes(digest, "little") & _MASK
            self._tags.append(last)

    def truncate(self, position: int) -> None:
        """Forget all labels from `position` on."""
        del self._tags[position + 1 :]

    def fork(self, position: int) -> "TagChain":
        """Copy of the first `position` labels' tags."""
        child = TagChain(self.key)
        child._tags = self._tags[: position + 1]
        return child


class Boundaries:
    """The hop's half: the tags that it was told, at the ends of the steps that it holds.

    Position 0 with tag 0 is always there: an empty cache holds the empty history.
    """

    def __init__(self) -> None:
        self._positions = array("I", [0])
        self._tags = array("Q", [0])

    @property
    def length(self) -> int:
        """Tokens held."""
        return self._positions[-1]

    @property
    def tag(self) -> int:
        """Name of all that is held."""
        return self._tags[-1]

    def copy(self) -> "Boundaries":
        """Independent copy."""
        other = Boundaries()
        other._positions, other._tags = self._positions[:], self._tags[:]
        return other

    def push(self, position: int, tag: int) -> None:
        """Note that the contents up to `position >= length` are called `tag`."""
        if position == self._positions[-1]:
            self._tags[-1] = tag
        else:
            self._positions.append(position)
            self._tags.append(tag)

    def truncate(self, position: int, tag: int) -> None:
        """Keep what ends at or below `position`, whose name is `tag`."""
        keep = bisect_left(self._positions, position + 1)
        del self._positions[keep:], self._tags[keep:]
        self.push(position, tag)

    def allows(self, position: int, tag: int) -> bool:
        """Tell whether contents called `tag` can end at `position` here.

        Inside a step no tag is known: there the order of the stream vouches for the contents.
        """
        if position > self.length:
            return False
        index = bisect_left(self._positions, position)
        return self._positions[index] != position or self._tags[index] == tag

    def tag_at(self, position: int) -> int | None:
        """Tag of a known boundary, None elsewhere."""
        index = bisect_left(self._positions, position)
        if index == len(self._positions) or self._positions[index] != position:
            return None
        return self._tags[index]

    def longest_match(self, theirs: dict[int, int]) -> tuple[int, int]:
        """Highest (position, tag) on which we and `theirs` agree; (0, 0) at the least."""
        for position, tag in zip(reversed(self._positions), reversed(self._tags), strict=True):
            if theirs.get(position) == tag:
                return position, tag
        return 0, 0


def pack_boundaries(chain: TagChain, positions: list[int]) -> tuple[bytes, bytes]:
    """The last 65,536 of the client's step boundaries, as Bind carries them (u32s, u64s)."""
    sent = positions[-MAX_SENT_BOUNDARIES:]
    return (
        struct.pack(f"<{len(sent)}I", *sent),
        struct.pack(f"<{len(sent)}Q", *(chain.tag(position) for position in sent)),
    )


def unpack_boundaries(positions: bytes, tags: bytes) -> dict[int, int]:
    """Position -> tag. Raises ValueError if the two do not belong together."""
    count, rest = divmod(len(positions), 4)
    if rest or len(tags) != count * 8:
        raise ValueError("a bind carries as many tags as positions")
    return dict(zip(struct.unpack(f"<{count}I", positions), struct.unpack(f"<{count}Q", tags), strict=True))
