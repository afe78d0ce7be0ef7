"""Who goes first when several sessions wait for KV room (pure; the clock is an argument).

Two sessions may each hold on one server what the other waits for on another. If both may take from each
other, both replay for ever; if neither may, both wait for ever. So all servers rank sessions alike, by a hash
of their names, and the first in rank gets what it waits for: the others wait until it has gone on (the rule
is "wound-wait" of Rosenkrantz, Stearns and Lewis, 1978, with a rank that needs no common clock). A client
that takes more than its fair share of this server ranks behind those that do not.
"""

import hashlib
from dataclasses import dataclass

from server.session_effects import SessionKey

WAITING_S = 2.0
"""A session that has not asked for so long does not wait any more; a client's retry comes sooner."""


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """The smaller, the sooner."""

    is_greedy: bool
    lot: bytes


def rank_of(key: SessionKey, *, is_greedy: bool) -> Rank:
    """The same on every server for the same session, but for `is_greedy`."""
    return Rank(is_greedy, hashlib.blake2b(key.client.encode() + key.session, digest_size=8).digest())


class WaitingLine:
    """The sessions that wait for room on this server."""

    def __init__(self) -> None:
        self._waiting: dict[SessionKey, tuple[Rank, float]] = {}

    def first(self, now_s: float) -> Rank | None:
        """The rank of whoever is served next."""
        late = [key for key, (_, asked_s) in self._waiting.items() if now_s - asked_s > WAITING_S]
        for key in late:
            del self._waiting[key]
        return min((rank for rank, _ in self._waiting.values()), default=None)

    def join(self, key: SessionKey, rank: Rank, now_s: float) -> None:
        """Wait from now on, or still."""
        self._waiting[key] = (rank, now_s)

    def leave(self, key: SessionKey) -> None:
        """Served, or gone."""
        self._waiting.pop(key, None)
