"""One at a time for each conversation: whoever opens a session does not meet whoever closes it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gates:
    """A lock for each conversation that somebody is at, and none for the others."""

    def __init__(self) -> None:
        self._locks: dict[int, asyncio.Lock] = {}
        self._num_at: dict[int, int] = {}

    @asynccontextmanager
    async def alone(self, conversation_id: int) -> AsyncIterator[None]:
        """Nobody else is past this gate for the length of the block."""
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        self._num_at[conversation_id] = self._num_at.get(conversation_id, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._num_at[conversation_id] -= 1
            if not self._num_at[conversation_id]:
                del self._num_at[conversation_id], self._locks[conversation_id]
