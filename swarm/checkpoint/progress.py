"""What a person hears while files are fetched, read or checked: a line every two seconds."""

import time
from collections.abc import Callable

EVERY_S = 2.0


class SpokenProgress:
    """A `Progress` that says a sentence every EVERY_S; `clock` is in seconds."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._said_s = clock()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if now - self._said_s >= EVERY_S:
            self._said_s = now
            self._say(f"{what}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
