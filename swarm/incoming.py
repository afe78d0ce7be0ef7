"""What each peer holds of ours, over all of its streams: how many, their bytes, our thread's time."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from swarm.streams import MAX_BYTES_PER_PEER, ByteBudget, LoopBudget
from swarm.wire.blocks import PeerId

MAX_STREAMS_PER_PEER = 256
MAX_STREAMS = 4096
FAIR_STREAMS = 8  # when all are taken, a peer with fewer than this may still open one: ids cost nothing
MAX_REFUSALS = 256
FORGOTTEN_REFUSALS_PER_S = 64  # a flood is some thousands; clients that try again are a few
MAX_REMEMBERED_PEERS = 4096


@dataclass(slots=True)
class Refusals:
    """How often a peer was refused, less what is forgotten by and by."""

    number: float = 0.0
    at_s: float = 0.0

    def add(self, now_s: float) -> None:
        """One more."""
        self.number = 1 + max(0.0, self.number - FORGOTTEN_REFUSALS_PER_S * (now_s - self.at_s))
        self.at_s = now_s


class IncomingStreams:
    """How many streams each peer holds, and whether it may have one more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.num_refused = 0
        self._clock = clock
        self._number: Counter[PeerId] = Counter()
        self._refusals: dict[PeerId, Refusals] = {}
        self._budgets: dict[PeerId, ByteBudget] = {}
        self._loop_budgets: dict[PeerId, LoopBudget] = {}

    def budget(self, peer_id: PeerId) -> ByteBudget:
        """The budget that all streams of the peer share."""
        return self._budgets.setdefault(peer_id, ByteBudget(MAX_BYTES_PER_PEER))

    def loop_budget(self, peer_id: PeerId) -> LoopBudget:
        """The same for the loop. What a peer owes is not forgotten when it comes back."""
        if len(self._loop_budgets) >= MAX_REMEMBERED_PEERS:
            self._loop_budgets = {
                peer: budget
                for peer, budget in self._loop_budgets.items()
                if peer in self._number or budget.owed_s()
            }
        return self._loop_budgets.setdefault(peer_id, LoopBudget())

    def is_full(self, peer_id: PeerId) -> bool:
        """Whether the peer holds as many streams as it may."""
        limit = MAX_STREAMS_PER_PEER if self._number.total() < MAX_STREAMS else FAIR_STREAMS
        return self._number[peer_id] >= limit

    def refuse(self, peer_id: PeerId) -> None:
        """Note that the peer was told that it holds too many."""
        self.num_refused += 1
        if self._number[peer_id] >= MAX_STREAMS_PER_PEER:  # else others hold too many
            if len(self._refusals) >= MAX_REMEMBERED_PEERS:
                self._refusals.clear()
            self._refusals.setdefault(peer_id, Refusals()).add(self._clock())

    def is_deaf(self, peer_id: PeerId) -> bool:
        """Whether the peer was told again and again of late, and goes on."""
        refusals = self._refusals.get(peer_id)
        return refusals is not None and refusals.number > MAX_REFUSALS

    def pardon(self, peer_id: PeerId) -> None:
        """It was cut off, and may begin anew."""
        self._refusals.pop(peer_id, None)

    @contextmanager
    def counted(self, peer_id: PeerId) -> Iterator[bool]:
        """Count a stream of the peer during the block; tells whether it is within the limits."""
        if not (is_admitted := not self.is_full(peer_id)):
            self.refuse(peer_id)
        self._number[peer_id] += 1
        try:
            yield is_admitted
        finally:
            self._number[peer_id] -= 1
            if not self._number[peer_id]:
                del self._number[peer_id]
                self._budgets.pop(peer_id, None)
