"""A clock that a test turns: whoever sleeps goes on when the test says so, in order, and never by itself."""

import asyncio
import heapq
from itertools import count

MAX_ROUNDS = 10_000


class FakeClock:
    """See bot.clock.Clock. Stands still unless `advance` is awaited."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = now_ms
        self._now_s = 0.0
        self._numbers = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._start_ms + round(self._now_s * 1000)

    def now_s(self) -> float:
        return self._now_s

    @property
    def num_sleepers(self) -> int:
        """How many wait for a later time."""
        return sum(not future.done() for *_, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_s + seconds, next(self._numbers), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let so much time pass: all who are due go on, the earliest first, until all wait again."""
        end_s = self._now_s + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end_s:
            due_s, _, woken = heapq.heappop(self._sleepers)
            if woken.done():  # cancelled
                continue
            self._now_s = due_s
            woken.set_result(None)
            await settle()
        self._now_s = end_s
        await settle()


async def settle() -> None:
    """Run all tasks until each of them waits. Fails if they go on for ever.

    Threads, processes and sockets are not waited for.
    """
    ready = getattr(asyncio.get_running_loop(), "_ready")  # noqa: B009 - the loop tells it nowhere else
    for _ in range(MAX_ROUNDS):
        await asyncio.sleep(0)
        if not ready:
            return
    raise AssertionError("some task never waits for anything")
