"""How long a session waits for what, and when it stops waiting (pure; every method is told the time).

A step that is under way makes progress, is in the hands of a server, is refused for want of room, or is not
heard of. Refusals are no progress, and neither are replays for want of room: two sessions could take turns at
them for ever. A server that says that it has the step in hand is slow, not lost: to ask another would compute
everything anew. But it may say so for ever, so a server's word counts for a while only, and that of one
server after the other for twice as long.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto

ACK_S = 4.0
STALL_S = 30.0
RECOVER_S = 60.0
BUSY_S = 2.0
IN_HAND_S = 120.0


class Verdict(Enum):
    """What to do about a session whose steps are waited for."""

    WAIT = auto()
    REBIND = auto()
    GIVE_UP = auto()


@dataclass(slots=True)
class Patience:
    """The clocks of one session, in seconds of any monotonic clock."""

    progress_s: float
    """When something came last that was waited for."""
    phase_s: float
    """When the route was bound or given up last."""
    in_hand_s: float = -math.inf
    """When a server said last that it has a step of the session in hand."""
    busy_s: float = math.inf
    """Since when servers refuse for want of room."""
    paused_s: float | None = None
    """Since when the answer does not go on because a server was lost; None while it goes on."""
    stall_s: float = STALL_S
    recover_s: float = RECOVER_S
    in_hand_limit_s: float = IN_HAND_S

    def begin(self, now_s: float) -> None:
        """Somebody waits from now on."""
        self.progress_s = now_s
        self.busy_s = math.inf
        if self.paused_s is not None:  # nobody waited until now
            self.paused_s = now_s

    def progress(self, now_s: float) -> None:
        """A replay has come further."""
        self.progress_s = now_s

    def in_hand(self, now_s: float) -> None:
        """A server of the route lives, and has steps of the session that wait or run."""
        self.in_hand_s = now_s

    def deliver(self, now_s: float) -> float | None:
        """A result came; returns how long the answer had paused if it had."""
        self.progress_s = now_s
        self.busy_s = math.inf
        paused_s, self.paused_s = self.paused_s, None
        return None if paused_s is None else now_s - paused_s

    def refuse(self, now_s: float) -> None:
        """A server has no room. What was in hand before is refused with it."""
        self.busy_s = min(self.busy_s, now_s)
        self.in_hand_s = -math.inf

    def bind(self, now_s: float) -> None:
        """A route is bound."""
        self.phase_s = now_s

    def lose(self, now_s: float) -> None:
        """A route is given up."""
        self.phase_s = now_s
        if self.paused_s is None:
            self.paused_s = now_s

    def is_silent(self, now_s: float) -> bool:
        """Whether those who have not acknowledged a bind must be taken for lost."""
        return now_s - self.phase_s > ACK_S

    def may_move(self, now_s: float) -> bool:
        """Whether a refusal has lasted so long that another server with room is the better choice.

        A cache must be computed anew there, which costs more than to wait for a moment.
        """
        return now_s - max(self.busy_s, self.phase_s) >= BUSY_S

    def judge(self, now_s: float) -> Verdict:
        """What to do about a step that is waited for, on a route that is bound."""
        limit_s = self.in_hand_limit_s
        waiting_s = min(self._believed(since_s, 2 * limit_s) for since_s in (self.progress_s, self.busy_s))
        if now_s - waiting_s > self.recover_s:
            return Verdict.GIVE_UP
        if now_s - self._believed(max(self.phase_s, self.progress_s), limit_s) > self.stall_s:
            return Verdict.REBIND
        return Verdict.WAIT

    def _believed(self, since_s: float, limit_s: float) -> float:
        """When something moved last, if a server's word counts until `limit_s` after `since_s`."""
        return max(since_s, min(self.in_hand_s, since_s + limit_s))
