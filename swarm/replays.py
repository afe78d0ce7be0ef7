"""Which hop feeds which lost cache again (pure). Rule 7 of docs/protocol.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

CLIENT = -1
"""As a source: the client replays from token ids."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one hop reported after a bind: it holds `[0, position)`, its log `[log_from, position)`."""

    position: int
    log_from: int


@dataclass(frozen=True, slots=True)
class Replay:
    """`source` sends `[start, end)` down the chain as far as `stop`; `lacking` are the hops that need it."""

    source: int
    start: int
    end: int
    stop: int
    lacking: tuple[int, ...]

    @property
    def fed(self) -> range:
        """Hops that compute in it: those between the source and the gap lack nothing."""
        return range(self.source + 1, self.stop + 1)


@dataclass(slots=True)
class Feeding:
    """Hops of one bind that are being given what they lack: copied pages, then one replay after the other."""

    lacking: set[int] = field(default_factory=set)
    """Those that have not said that they are ready."""
    fed: set[int] = field(default_factory=set)
    """Those that have something to do for it."""
    _reached: dict[int, int] = field(default_factory=dict)

    def begin(self, lacking: Iterable[int], fed: Iterable[int]) -> None:
        """The next part of it."""
        self.lacking, self.fed = set(lacking), set(fed)

    def has_come_further(self, stage: int, position: int, held: int) -> bool:
        """Tell whether a hop that `held` so much when it was bound is further than we have heard before."""
        before = self._reached.get(stage, held)
        self._reached[stage] = max(before, position)
        return position > before


def plan_replays(holdings: Sequence[Holding], commit: int) -> list[Replay]:
    """Replays that bring every hop to `commit`, to be run one after the other.

    A run of neighbours that lack the same part is fed in one go, each passing it on to the next. With
    hops holding 9, 0, 0, 9 of 9 tokens, hop 0 replays `[0, 9)` as far as hop 2; hop 3 recomputes nothing.
    If no log before the gap covers it, the client replays, and the hops in between compute again.
    A hop that lacked a little itself is a source once it has been fed: its log goes on without a hole.
    """
    have = [min(holding.position, commit) for holding in holdings]
    log_from = [holding.log_from for holding in holdings]
    replays = []
    stage = 0
    while stage < len(have):
        if have[stage] == commit:
            stage += 1
            continue
        start, stop = have[stage], stage
        while stop + 1 < len(have) and have[stop + 1] == start:
            stop += 1
        source = next((hop for hop in range(stage - 1, -1, -1) if log_from[hop] <= start), CLIENT)
        replays.append(Replay(source, start, commit, stop, tuple(range(stage, stop + 1))))
        for hop in replays[-1].fed:
            log_from[hop] = min(log_from[hop], start)
        stage = stop + 1
    return replays
