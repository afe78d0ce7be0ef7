"""One pacer for each channel."""

from collections import OrderedDict
from collections.abc import Callable

from bot.clock import Clock
from bot.sending.pacer import Pacer
from bot.sending.pacing import Pace

MOST_PACERS = 500


class Pacers:
    """Those of the channels that were used last."""

    def __init__(self, pace: Callable[[], Pace], clock: Clock) -> None:
        self._pace = pace
        self._clock = clock
        self._kept: OrderedDict[str, Pacer] = OrderedDict()

    def of(self, place: str) -> Pacer:
        """The channel's; of too many the one that was used least recently is forgotten."""
        pacer = self._kept.pop(place, None) or Pacer(self._pace(), self._clock)
        self._kept[place] = pacer
        if len(self._kept) > MOST_PACERS:
            self._kept.popitem(last=False)
        return pacer

    def forget(self, place: str) -> None:
        """The channel is there no more."""
        self._kept.pop(place, None)
