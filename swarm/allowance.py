"""Bytes that peers may make us hold, each and all together, whoever in this process holds them.

Every holder says how much it holds *now*, instead of adding and taking away: what is forgotten on some path
is put right by the next word.
"""

import asyncio
import sys
from collections import Counter

from swarm.wire.blocks import PeerId


class Allowances:
    """What all peers may have in one kind of buffer.

    A peer may hold `per_peer` bytes, and up to twice as many for those of its holders that have nothing yet:
    whoever takes one piece after the other does not wait for others that take a hundred. Once all together
    hold `in_all`, those with more than an equal share of it get nothing more. A holder may overshoot by one
    piece, so that no piece is too large for ever.
    """

    def __init__(self, per_peer: int, in_all: int) -> None:
        self._per_peer = per_peer
        self._in_all = in_all
        self._held: Counter[PeerId] = Counter()
        self._freed = asyncio.Event()

    @property
    def held(self) -> int:
        """Bytes that all peers hold."""
        return self._held.total()

    def open(self, peer_id: PeerId) -> "Allowance":
        """One more holder on behalf of the peer."""
        return Allowance(self, peer_id)

    def is_exhausted(self, peer_id: PeerId, *, is_first: bool = False) -> bool:
        """Tell whether the peer must wait, or be refused, before it may hold more, or a holder its first."""
        held = self._held[peer_id]
        if held < self._per_peer * (1 + is_first) and self.held < self._in_all:
            return False
        return held >= min(self._per_peer, self._in_all / max(1, len(self._held)))

    def change(self, peer_id: PeerId, by: int) -> None:
        """A holder of the peer holds so much more, or less; unless it is more, those who wait look again."""
        self._held[peer_id] += by
        if not self._held[peer_id]:
            del self._held[peer_id]
        if by <= 0:
            self._freed.set()

    async def wait_for_change(self) -> None:
        """Until a holder has said that it holds no more than before."""
        self._freed.clear()
        await self._freed.wait()


class Allowance:
    """One holder's part: a queue, a session's accepted steps."""

    def __init__(self, all_peers: Allowances, peer_id: PeerId) -> None:
        self._all = all_peers
        self._peer_id = peer_id
        self._held = 0

    @property
    def is_exhausted(self) -> bool:
        """True if the peer may hold no more here."""
        return self._all.is_exhausted(self._peer_id, is_first=not self._held)

    def note(self, num_bytes: int) -> None:
        """This holder holds `num_bytes` now."""
        self._held, by = num_bytes, num_bytes - self._held
        self._all.change(self._peer_id, by)

    async def wait_for_change(self) -> None:
        """Until a holder, of this peer or another, has said that it holds no more than before."""
        await self._all.wait_for_change()


def unlimited() -> Allowance:
    """For what we hold on our own behalf."""
    return Allowances(sys.maxsize, sys.maxsize).open(PeerId(""))
