"""Whose KV cache to put aside when memory is short (pure).

Detached sessions go first, then those that nobody has used for longest. A session in use a moment ago is
spared, unless its client holds more than a fair share of the pages: one client can slow only itself.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from server.session_effects import SessionKey
from swarm.wire.blocks import PeerId

SPARED_S = 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session with something in memory: its pages, and since when nobody has used it."""

    key: SessionKey
    pages: int
    unused_s: float
    is_detached: bool
    is_idle: bool


def choose_victim(candidates: Iterable[Candidate], capacity_pages: int) -> SessionKey | None:
    """The session whose cache can best be done without; None if all are needed.

    With three clients, of 90 pages each has a fair share of 30: sessions of one that holds 60 are not spared.
    """
    held = list(candidates)
    per_peer: Counter[PeerId] = Counter()
    for candidate in held:
        per_peer[candidate.key.client] += candidate.pages
    share = capacity_pages / max(1, len(per_peer))
    greedy = {peer for peer, pages in per_peer.items() if pages > share}
    ripe = [
        candidate
        for candidate in held
        if candidate.is_idle
        and (candidate.is_detached or candidate.unused_s > SPARED_S or candidate.key.client in greedy)
    ]
    best = max(ripe, key=lambda c: (c.is_detached, c.key.client in greedy, c.unused_s), default=None)
    return best.key if best else None
