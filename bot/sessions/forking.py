"""Which session a new one is best forked from. Pure."""

from collections.abc import Iterable, Sequence

from bot.sessions.holder import Holder

LEAST_SHARED_TOKENS = 16
"""To fork for fewer costs more than to tell them again."""
CHUNK_TOKENS = 256


def best_parent(holders: Iterable[Holder], ids: Sequence[int]) -> tuple[Holder, int] | None:
    """The holder whose session knows most of `ids`, and how many tokens of it; None if none knows enough."""
    wanted = list(ids[:-1])
    known = [
        (session.forkable(num_shared(session.ids, wanted)), holder)
        for holder in holders
        if holder.is_idle and (session := holder.session) is not None
    ]
    shared, parent = max(known, key=lambda each: each[0], default=(0, None))
    return None if parent is None or shared < LEAST_SHARED_TOKENS else (parent, shared)


def num_shared(one: list[int], other: list[int]) -> int:
    """How many ids both begin with. Compared in chunks: there may be many long conversations."""
    length = min(len(one), len(other))
    start = 0
    while start < length and one[start : start + CHUNK_TOKENS] == other[start : start + CHUNK_TOKENS]:
        start += CHUNK_TOKENS
    while start < length and one[start] == other[start]:
        start += 1
    return min(start, length)
