"""How long to wait between tries while Discord cannot be reached: ever longer, for ever."""

from collections.abc import Iterator
from itertools import chain, repeat

RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


def waits_s() -> Iterator[float]:
    """After each try that failed, so many seconds; it never ends."""
    return chain(RETRY_S, repeat(RETRY_S[-1]))
