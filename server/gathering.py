"""Whether a batch waits a moment for steps that are about to come. Pure.

A decode step reads all weights, for one session as for eight: a batch that begins a moment before its second
step arrives makes that one wait for a whole batch more. Sessions that left together come back together, one
behind the other, as their client samples them; but whichever comes first would begin alone, and the groups
would become smaller and smaller. So a batch waits for a sixth of its length as long as a session that ran a
moment ago is away, and again for each that comes, half its length at most.

Seen on two cores, 16 blocks over two hops (docs/benchmarks.md, `batch`): 1.1 times as many tokens a second
for 2 sessions, 1.4 for 4, 1.3 for 8, 1.1 for 16. A session that is alone never waits.
"""

from collections.abc import Collection, Hashable

WINDOW = 0.16
MAX_WAIT = 0.5
AWAY = 6.0
"""Shares of a batch's length: how long to wait for the next one, and for all; who left before that has gone
for good."""
MAX_LENGTH_S = 0.05
"""Longer batches count as so long: nobody is to notice the wait."""
_NEWEST = 0.2


class Gathering:
    """Which sessions ran a moment ago, and how long batches of short works take. Times are in seconds."""

    def __init__(self) -> None:
        self._left_s: dict[Hashable, float] = {}
        self._batch_s = 0.0

    def ran(self, sessions: Collection[Hashable], batch_s: float, now_s: float) -> None:
        """Note that steps of `sessions` have left in a batch that took `batch_s`."""
        batch_s = min(batch_s, MAX_LENGTH_S)
        self._batch_s += _NEWEST * (batch_s - self._batch_s) if self._batch_s else batch_s
        since_s = now_s - AWAY * self._batch_s
        self._left_s = {session: at_s for session, at_s in self._left_s.items() if at_s > since_s}
        self._left_s |= dict.fromkeys(sessions, now_s)

    def patience_s(self, waiting: Collection[Hashable], waited_s: float, now_s: float) -> float:
        """For how long to wait for one more, when steps of `waiting` are here; 0 to begin."""
        since_s = now_s - AWAY * self._batch_s
        if not any(at_s > since_s and session not in waiting for session, at_s in self._left_s.items()):
            return 0.0
        return max(0.0, min(WINDOW * self._batch_s, MAX_WAIT * self._batch_s - waited_s))
