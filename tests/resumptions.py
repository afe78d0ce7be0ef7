"""How often the loop has to take up something that waits: what wakes for nothing is work as well."""

from collections.abc import Awaitable, Generator
from typing import Any


class Resumptions:
    """Counts them over all that it is told to `watch`."""

    def __init__(self) -> None:
        self.number = 0

    async def watch(self, waiting: Awaitable[object]) -> None:
        """Wait for `waiting`."""
        self.number -= 1  # to begin is not to go on
        await _Watched(self, waiting.__await__())


class _Watched(Generator[Any, Any, Any]):
    def __init__(self, counts: Resumptions, waiting: Generator[Any, Any, Any]) -> None:
        self._counts, self._waiting = counts, waiting

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any) -> Any:
        self._counts.number += 1
        return self._waiting.send(value)

    def throw(self, *error: Any) -> Any:
        self._counts.number += 1
        return self._waiting.throw(*error)
