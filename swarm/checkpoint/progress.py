"""What a person hears while files are fetched, read or checked.

On a terminal one line changes; elsewhere a line comes after two seconds, four more, eight more, ... a minute.
"""

import time
from collections.abc import Callable
from typing import Any

from swarm.checkpoint.digests import Progress
from swarm.say import clear, is_terminal, say, show

FIRST_S = 2.0
MOST_S = 60.0
CHANGE_S = 0.2


class SpokenProgress:
    """A `Progress` that tells how far things are; `clock` is in seconds.

    `speak` gets sentences; if it is the commands' own `say`, and on a terminal, one line changes instead.
    """

    def __init__(self, speak: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._speak = speak
        self._clock = clock
        self._is_shown = speak is say and is_terminal()
        self._told_s = clock()
        self._pause_s = CHANGE_S if self._is_shown else FIRST_S

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if self._is_shown and total and done >= total:
            clear()
        elif now - self._told_s >= self._pause_s:
            self._told_s = now
            self._tell(f"{what}: {_of(done, total)}" if done or total else what)

    def _tell(self, text: str) -> None:
        if self._is_shown:
            show(text)
        else:
            self._speak(text)
            self._pause_s = min(2 * self._pause_s, MOST_S)


def _of(done: int, total: int) -> str:
    unit, size = ("MB", 1e6) if total >= 10**7 or not total else ("kB", 1e3)
    return f"{done / size:,.0f} of {total / size:,.0f} {unit}" if total else f"{done / size:,.1f} {unit}"


def bar_class(what: str, progress: Progress | None) -> type[Any]:
    """Return a kind of tqdm's progress bar that reports to `progress` and draws nothing.

    The chunk store has two for one file, what came and what was written: who is ahead is told.
    """
    from tqdm import tqdm

    told = 0

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.size = int(self.total or 0)

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal told
            self.n += n or 0
            if progress is not None and self.n > told:
                told = int(self.n)
                progress(what, min(told, self.size) if self.size else told, self.size)
            return None

    return Silent
