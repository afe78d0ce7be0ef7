"""How often the loop has to take up something that waits: what wakes for nothing is work as well."""

from collections.abc import Awaitable, Generator
from typing import Any


class Resumptions:
    """Counts them over all that it is told to `watch`."""

    def __init__(self) -> None:
        self.number = 0

    async def watch(self, waiting: Awaitable[object]) -> None:
        """Wait for `waiting`."""
        await _Watched(self, waiting)


class _Watched:
    def __init__(self, counts: Resumptions, waiting: Awaitable[object]) -> None:
        self._counts, self._waiting = counts, waiting

    def __await__(self) -> Generator[Any, Any, None]:
        for pause in self._waiting.__await__():
            yield pause
            self._counts.number += 1
