"""Epochs, written down before they are used: a client that comes back is never behind its own past.

Some are written down ahead, in one ticket. So a route that is lost is replaced at once, and no disk is waited
for; and what writes may take its time.
"""

import asyncio
from collections.abc import Awaitable, Callable

SaveTicket = Callable[[bytes], Awaitable[None]]
AHEAD = 16
"""A session is seldom bound so often between two looks at its ticket; if it is, it waits for the disk."""


class Epochs:
    """Which epochs of a session may be used: all, if nobody writes them down."""

    def __init__(self, save: SaveTicket | None, used: int) -> None:
        """`used` is the session's epoch, which was written down by whoever used it first."""
        self._save = save
        self._written = used
        self._writing = asyncio.Lock()
        self._is_due = asyncio.Event()

    def may_use(self, epoch: int) -> bool:
        """It has been written down."""
        return self._save is None or epoch <= self._written

    def claimed(self, epoch: int) -> int:
        """The epoch for a ticket at `epoch`: whoever takes it goes on above all that we may use."""
        return max(epoch, self._written)

    def note_bound(self) -> None:
        """A route was bound: the ticket that is written down names another one."""
        self._is_due.set()

    async def due(self) -> None:
        """Wait until the ticket is to be written down anew."""
        await self._is_due.wait()

    async def write_down(self, epoch: Callable[[], int], ticket: Callable[[int], bytes]) -> None:
        """Save the ticket of a session at `epoch`, and with it the next ones. Raises what saving raises."""
        self._is_due.clear()
        if self._save is not None:
            async with self._writing:
                ahead = self.claimed(epoch() + AHEAD)
                await self._save(ticket(ahead))
                self._written = ahead
