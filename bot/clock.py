"""Time as the core knows it: a real clock, or one that tests turn."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC; may be set back."""

    def now_s(self) -> float:
        """Seconds since some moment; only goes on."""

    async def sleep(self, seconds: float) -> None:
        """Wait so long."""


class RealClock:
    """The machine's own."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
