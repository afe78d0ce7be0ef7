"""Turns for which no server has room: who is next, and for how long it is worth waiting. Pure."""

from dataclasses import dataclass

from swarm.errors import MurmurError

WAIT_S = 300.0
"""Nobody waits longer."""
FIRST_S = 45.0
"""Whoever is first tries for so long while others wait behind: what never fits must not keep them all. Less
than a session's own patience, so that it is not tried twice."""


class NoRoom(MurmurError):
    """A turn has waited in vain."""


@dataclass(slots=True)
class _Waiting:
    joined_s: float
    first_s: float | None = None
    """Since when nobody is ahead."""


class RoomLine:
    """Turns that wait for room, in the order in which they began to; the first one tries to get it."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def join(self, turn_id: str, now_s: float) -> None:
        """Wait from now on, behind all others. One that waits already stays where it is."""
        self._waiting.setdefault(turn_id, _Waiting(now_s))
        self._note_first(now_s)

    def leave(self, turn_id: str, now_s: float) -> None:
        """It has room, or does not want it any more."""
        if self._waiting.pop(turn_id, None) is not None:
            self._note_first(now_s)

    def num_ahead(self, turn_id: str) -> int:
        """How many are before it; all, if it does not wait."""
        return list(self._waiting).index(turn_id) if turn_id in self._waiting else len(self._waiting)

    def place_of(self, turn_id: str) -> str:
        """The same, for people."""
        ahead = self.num_ahead(turn_id)
        place = f"{ahead} ahead of you" if ahead else "you are next"
        return f"(all servers are full: {place})"

    def is_hopeless(self, turn_id: str, now_s: float) -> bool:
        """It has waited for so long, or tried while others wait, that it is better to give up."""
        waiting = self._waiting[turn_id]
        has_tried = waiting.first_s is not None and now_s - waiting.first_s >= FIRST_S
        return now_s - waiting.joined_s >= WAIT_S or (has_tried and len(self._waiting) > 1)

    def _note_first(self, now_s: float) -> None:
        first = next(iter(self._waiting.values()), None)
        if first is not None and first.first_s is None:
            first.first_s = now_s
