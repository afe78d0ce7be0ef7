"""Whether a batch waits a moment for steps that are about to come. Pure.

A decode step reads all weights, for one session as for eight: a batch that begins a moment before its second
step arrives makes that one wait for a whole batch more. Sessions that left together come back together, one
behind the other, as their client samples them; but whichever comes first would begin alone, and the groups
would become smaller and smaller. So a batch waits for a sixth of its length as long as a session that ran a
moment ago is away, and again for each that comes, half its length at most.

Seen on two cores, 16 blocks over two hops (docs/benchmarks.md, `batch`): 1.1 times as many tokens a second
for 2 sessions, 1.4 for 4, 1.3 for 8, 1.1 for 16. A session that is alone never waits.

A batch with a prompt has enough to do without them. It waits for those alone who were back in time when they
were away before: else every second batch would hold the prompt alone, and steps take twice as long as meant.
"""

import math
from collections.abc import Hashable, Mapping, Set
from typing import Any

WINDOW = 0.16
MAX_WAIT = 0.5
AWAY = 6.0
"""Shares of a batch's length: how long to wait for the next one, and for all; who left before that has gone
for good."""
MAX_LENGTH_S = 0.05
"""Longer batches count as so long: nobody is to notice the wait."""
_NEWEST = 0.2
_FADING = 0.8


class Gathering:
    """Which sessions ran a moment ago, and how long batches with short works take. Times are in seconds."""

    def __init__(self) -> None:
        self._left_s: dict[Hashable, float] = {}
        self._away_s: dict[Hashable, float] = {}
        """For how long each of these is expected to be away."""
        self._batch_s = 0.0

    def ran(self, came_s: Mapping[Any, float], batch_s: float, now_s: float) -> None:
        """Note that steps of sessions, which came at `came_s`, have left in a batch that took `batch_s`."""
        batch_s = min(batch_s, MAX_LENGTH_S)
        self._batch_s += _NEWEST * (batch_s - self._batch_s) if self._batch_s else batch_s
        since_s = now_s - AWAY * self._batch_s
        for session, at_s in came_s.items():
            self._away_s[session] = self._expected_s(session, at_s)
            self._left_s[session] = now_s
        for session in [session for session, at_s in self._left_s.items() if at_s <= since_s]:
            del self._left_s[session], self._away_s[session]

    def _expected_s(self, session: Hashable, came_s: float) -> float:
        """For how long it may be away the next time. Whoever came late is not soon trusted again.

        But one that had gone, while its user thought, begins anew: that says nothing about its next steps.
        """
        left_s = self._left_s.get(session)
        if left_s is None or came_s - left_s > AWAY * self._batch_s:
            return math.inf
        away_s, before_s = max(0.0, came_s - left_s), self._away_s[session]
        return max(away_s, _FADING * before_s) if math.isfinite(before_s) else away_s

    def patience_s(
        self, waiting: Set[Hashable], waited_s: float, now_s: float, *, has_prompt: bool = False
    ) -> float:
        """For how long to wait for one more, when steps of `waiting` are here; 0 to begin."""
        most_s = MAX_WAIT * self._batch_s - waited_s
        if has_prompt:
            return max(0.0, min(most_s, self._soonest_s(waiting, now_s)))
        since_s = now_s - AWAY * self._batch_s
        for session, left_s in self._left_s.items():
            if left_s > since_s and session not in waiting:
                return max(0.0, min(WINDOW * self._batch_s, most_s))
        return 0.0

    def _soonest_s(self, waiting: Set[Hashable], now_s: float) -> float:
        """Until when the first of those who are soon back is overdue; 0 if there are none."""
        longest_s, window_s = MAX_WAIT * self._batch_s, WINDOW * self._batch_s
        overdue_s = [
            self._left_s[session] + away_s + window_s
            for session, away_s in self._away_s.items()
            if away_s <= longest_s and session not in waiting
        ]
        return min([at_s - now_s for at_s in overdue_s if at_s > now_s], default=0.0)
