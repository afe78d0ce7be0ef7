"""Trying again while the homeserver is gone: ever more rarely, with one line in the log."""

import logging

from bot.clock import Clock
from bot.words import Limited

logger = logging.getLogger(__name__)

RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)


class Patience:
    """Waits between tries; `what` begins the line in the log."""

    def __init__(self, clock: Clock, what: str) -> None:
        self._clock = clock
        self._what = what
        self._num_failures = 0

    async def wait(self, error: Exception) -> None:
        """After a try that failed."""
        if not self._num_failures:
            reason = str(error) or type(error).__name__
            logger.warning("%s: %s; I try again until it is done", self._what, reason)
        wait_s = RETRY_S[min(self._num_failures, len(RETRY_S) - 1)]
        self._num_failures += 1
        await self._clock.sleep(max(wait_s, error.retry_after_s) if isinstance(error, Limited) else wait_s)

    def end(self) -> None:
        """After a try that did not fail."""
        if self._num_failures:
            logger.info("%s: no longer so", self._what)
        self._num_failures = 0
