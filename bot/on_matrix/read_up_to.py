"""Up to when we have read, by the times of the events: where we go on if the homeserver has lost our token.

Times are worth little: others write them, and what is under way at the same time may come in another order.
So a minute is read once more, and the inbox knows what it has seen of that, as long as it keeps that.
"""

from collections.abc import Sequence

from bot.clock import Clock
from bot.on_matrix.fields import Object, number_of
from bot.sweeping import KEEP_EVENTS_MS

OVERLAP_MS = 60_000
NOTHING = -1
"""We have not begun to read: all that there is counts as old."""


class ReadUpTo:
    """The newest time that was read. What is noted counts once it is committed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read_ms = NOTHING
        self._next_ms = NOTHING

    def load(self, dumped: str) -> None:
        """What `dump` has given before a restart; "" if there was none."""
        self._read_ms = self._next_ms = max(NOTHING, number_of(dumped, NOTHING))

    def begin(self) -> None:
        """All rooms were seen: whatever comes is newer than nothing at least."""
        self._next_ms = max(self._next_ms, 0)

    def note(self, events: Sequence[Object]) -> None:
        """These are being read. Nobody's clock may be ahead of ours: what comes next would count as old."""
        now_ms = self._clock.now_ms()
        self._next_ms = max((self._next_ms, *(min(_time_of(event), now_ms) for event in events)))

    def dump(self) -> str:
        """To be kept together with what was read; "" if that is nothing."""
        return str(self._next_ms) if self._next_ms != NOTHING else ""

    def commit(self) -> None:
        """What was noted is kept."""
        self._read_ms = self._next_ms

    def newer(self, events: Sequence[Object]) -> list[Object]:
        """Those that may not have been read; none if nothing ever was.

        None either of which the inbox may have forgotten that they were: they would be dealt with once more.
        """
        if self._read_ms == NOTHING:
            return []
        is_forgotten_ms = self._clock.now_ms() - KEEP_EVENTS_MS + OVERLAP_MS  # others' clocks may be ahead
        after_ms = max(self._read_ms - OVERLAP_MS, is_forgotten_ms)
        return [event for event in events if _time_of(event) > after_ms]


def _time_of(event: Object) -> int:
    return number_of(event.get("origin_server_ts"))
