"""Epochs, written down before they are used: a client that comes back is never behind its own past.

Some are written down ahead, in one ticket. So a route that is lost is replaced at once, and no disk is waited
for; and what writes may take its time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

SaveTicket = Callable[[bytes], Awaitable[None]]
AHEAD = 16
"""A session is seldom bound so often between two looks at its ticket; if it is, it waits for the disk."""
AGAIN_S = 2.0


class Epochs:
    """Which epochs of a session may be used: all, if nobody writes them down."""

    def __init__(self, save: SaveTicket | None, used: int, again_s: float = AGAIN_S) -> None:
        """`used` is the session's epoch, which was written down by whoever used it first."""
        self._save = save
        self._written = self._claimed = used
        self._again_s = again_s
        self._is_due = asyncio.Event()

    def may_use(self, epoch: int) -> bool:
        """It has been written down."""
        return self._save is None or epoch <= self._written

    def claimed(self, epoch: int) -> int:
        """The epoch for a ticket at `epoch`: whoever takes it goes on above all that we may come to use."""
        return max(epoch, self._claimed)

    def ask(self) -> None:
        """Have a ticket written down soon: it names another route, or no epoch is left."""
        self._is_due.set()

    async def write_down(self, epoch: int, ticket: Callable[[int], bytes]) -> None:
        """Save the ticket of a session at `epoch`, and with it the next ones. Raises what saving raises."""
        self._is_due.clear()
        if self._save is not None:
            # Claimed before it is written: who saves another ticket meanwhile must not claim less.
            ahead = self._claimed = self.claimed(epoch + AHEAD)
            await self._save(ticket(ahead))
            self._written = max(self._written, ahead)

    async def keep_forever(
        self, epoch: Callable[[], int], ticket: Callable[[int], bytes], on_written: Callable[[], None]
    ) -> None:
        """Write down what is asked for. What cannot be saved is tried again as long as epochs are left.

        Raises what saving raises when none is.
        """
        while True:
            await self._is_due.wait()
            try:
                await self.write_down(epoch(), ticket)
            except Exception as error:  # whatever `save` raises: it is the caller's own
                if not self.may_use(epoch() + 1):
                    raise
                logger.warning("a ticket is not kept, once more in %.0f s: %s", self._again_s, error)
                await asyncio.sleep(self._again_s)
                self.ask()
            else:
                on_written()
