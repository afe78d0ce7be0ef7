"""The fake's time, which a test may turn, and ids that carry it."""

import time
from datetime import UTC, datetime

DISCORD_EPOCH_MS = 1_420_070_400_000
STEPS_PER_MS = 1 << 22


class TurnableClock:
    """The machine's time plus what a test added to it."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def now_s(self) -> float:
        """Seconds since 1970."""
        return time.time() + self._ahead_s

    def turn(self, seconds: float) -> None:
        """Go `seconds` forward at once; whatever counts time here sees it."""
        self._ahead_s += seconds


class Ids:
    """Snowflakes: no two are equal, and later ones are greater unless they are dated back."""

    def __init__(self, clock: TurnableClock) -> None:
        self._clock = clock
        self._taken: set[int] = set()

    def next(self, ago_s: float = 0.0) -> int:
        """A new id, made `ago_s` seconds before now."""
        snowflake = id_of_moment(self._clock.now_s() - ago_s)
        while snowflake in self._taken:
            snowflake += 1
        self._taken.add(snowflake)
        return snowflake


def id_of_moment(at_s: float) -> int:
    return (int(at_s * 1000) - DISCORD_EPOCH_MS) * STEPS_PER_MS


def moment_of_id(snowflake: int) -> float:
    """Seconds since 1970 at which an id was made."""
    return (snowflake // STEPS_PER_MS + DISCORD_EPOCH_MS) / 1000


def timestamp(at_s: float) -> str:
    """As Discord writes moments."""
    return datetime.fromtimestamp(at_s, UTC).isoformat()
