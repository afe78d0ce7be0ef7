"""Whose KV cache to put aside when memory is short (pure).

Detached sessions go first, then those that nobody has used for longest. A session in use a moment ago is
spared, and for longer by whoever comes behind it in rank (waiting_line.py), unless its client holds more than
a fair share of the pages: one client can slow only itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from server.session_effects import SessionKey
from server.waiting_line import Rank

SPARED_S = 1.0
SPARED_BY_LATER_S = 5.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session with something in memory, and since when nobody has used it."""

    key: SessionKey
    rank: Rank
    unused_s: float
    is_detached: bool
    is_idle: bool


def choose_victim(candidates: Iterable[Candidate], first: Rank | None = None) -> SessionKey | None:
    """The session whose cache can best be done without; None if all are needed.

    `first` is the rank of the session that waits for room.
    """
    ripe = [candidate for candidate in candidates if candidate.is_idle and _is_ripe(candidate, first)]
    best = max(ripe, key=lambda c: (c.is_detached, c.rank.is_greedy, c.unused_s), default=None)
    return best.key if best else None


def _is_ripe(candidate: Candidate, first: Rank | None) -> bool:
    if candidate.is_detached:
        return True
    if candidate.rank.is_greedy and (first is None or not first.is_greedy):
        return True
    is_before = first is None or first.lot < candidate.rank.lot  # greed differs from server to server
    return candidate.unused_s > (SPARED_S if is_before else SPARED_BY_LATER_S)
