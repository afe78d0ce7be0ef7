"""Who failed lately, and when to try them again. Pure; the clock is injected.

Only failures are blamed. A peer that is busy said so politely and is not reported here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from swarm.wire.blocks import PeerId

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 120.0
FORGET_S = 600.0
RESULTS_TO_FORGIVE = 32
PENALTY_S = 0.05
MAX_PEERS = 4096


@dataclass(frozen=True, slots=True)
class _Failures:
    number: int
    last_at: float
    retry_at: float
    num_good: int = 0


class Health:
    """Failures in a row of every peer: each doubles the pause before the next attempt.

    One failure pauses a peer for 2 s, the second in a row for 4 s, and so on to 2 minutes. After the pause
    the peer may be used but is penalised until it has given 32 results, or has not failed for 10 minutes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[PeerId, _Failures] = {}

    def failed(self, peer_id: PeerId) -> None:
        """Note a failure. Several reports of one and the same (during its pause) count once."""
        now = self._clock()
        held = self._held(peer_id)
        if held and now < held.retry_at:
            return
        number = held.number + 1 if held else 1
        pause_s = min(FIRST_PAUSE_S * 2 ** (number - 1), LONGEST_PAUSE_S)
        self._failures.pop(peer_id, None)
        while len(self._failures) >= MAX_PEERS:
            del self._failures[next(iter(self._failures))]
        self._failures[peer_id] = _Failures(number, now, now + pause_s)

    def succeeded(self, peer_id: PeerId) -> None:
        """Note a result. 32 since the last failure make it forgotten: a lie may follow some good ones."""
        held = self._held(peer_id)
        if held is None:
            return
        if held.num_good + 1 < RESULTS_TO_FORGIVE:
            self._failures[peer_id] = replace(held, num_good=held.num_good + 1)
        else:
            del self._failures[peer_id]

    def retry_at(self, peer_id: PeerId) -> float:
        """When the peer may be tried again, by our clock; 0 if it may always be."""
        held = self._held(peer_id)
        return held.retry_at if held else 0.0

    def is_paused(self, peer_id: PeerId) -> bool:
        """Whether the peer must be left alone now."""
        return self._clock() < self.retry_at(peer_id)

    def avoiding(self) -> dict[PeerId, float]:
        """For `find_route`: seconds to add to a hop through each peer that failed, infinite in its pause."""
        return {peer: self._penalty_s(peer) for peer in tuple(self._failures) if self._held(peer)}

    def _penalty_s(self, peer_id: PeerId) -> float:
        return math.inf if self.is_paused(peer_id) else PENALTY_S * self._failures[peer_id].number

    def _held(self, peer_id: PeerId) -> _Failures | None:
        held = self._failures.get(peer_id)
        if held and self._clock() - held.last_at > FORGET_S:
            del self._failures[peer_id]
            return None
        return held
