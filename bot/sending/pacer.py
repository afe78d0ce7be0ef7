"""Everything that is shown in one channel, or by one account, waits here for its turn: see pacing.py.

The rules say how long each has to wait; of those who may go the most important goes, then whoever came first.
What has waited for long is as important as a final, so that everything but previews is sent some time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from bot.clock import Clock
from bot.sending.pacing import NEVER, Pace, Priority, Stream
from bot.words import Limited, SendError
from swarm.background import running

T = TypeVar("T")

MOST_WAITING = 200
DEADLINE_S = 300.0
PATIENCE_S = 20.0
"""After so long anything but a preview is as important as a final."""
LEAST_RETRY_S = 0.5
"""After a refusal, if the platform names no time; twice as long after the next one."""
MOST_RETRY_S = 600.0
LOOK_S = 5.0
"""After so long whoever waits looks again whether it is its turn."""
MARGIN_S = 0.01


class Skipped(Exception):
    """A preview, or a first post among too many answers, is never to be shown: the final will be."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """Something that is to be sent."""

    priority: Priority
    stream: Stream | None
    number: int
    since_s: float
    is_superseded: bool = False
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def rank(self, now_s: float) -> tuple[Priority, int]:
        """The smallest goes first."""
        is_patient = self.priority is Priority.PREVIEW or now_s - self.since_s < PATIENCE_S
        return (self.priority if is_patient else Priority.FINAL), self.number

    def is_preview_of(self, stream: Stream | None) -> bool:
        return self.priority is Priority.PREVIEW and stream is not None and self.stream is stream


class Pacer:
    """Lets senders through one by one, as often as `pace` allows."""

    def __init__(
        self, pace: Pace, clock: Clock, *, most_waiting: int = MOST_WAITING, deadline_s: float = DEADLINE_S
    ) -> None:
        self._pace = pace
        self._clock = clock
        self._most_waiting = most_waiting
        self._deadline_s = deadline_s
        self._numbers = count()
        self._waiting: list[_Waiter] = []

    @property
    def num_waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Stream]:
        """An answer that is shown while it is written, from its beginning to its end."""
        stream = self._pace.begin(self._clock.now_s())
        try:
            yield stream
        finally:
            self._pace.end(stream)
            self._supersede_previews(stream)
            self._wake_all()

    async def send(self, priority: Priority, stream: Stream | None, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` when it is its turn, again if the platform limits it; returns what it returns.

        `work` has a deadline of its own; it is called when its turn has come, so it can take the newest text.
        Raises Skipped for what is never to be shown, Limited if too many wait, if it would have to wait for
        too long, or if a preview was limited; and other errors of `work` as they are.
        """
        waiter = self._entered(priority, stream)
        for num_tries in count():
            await self._turn(waiter)
            self._pace.note_sent(priority, stream, self._clock.now_s())
            try:
                return await work()
            except SendError as error:
                self._note_failure(waiter, error, num_tries)
                if priority is Priority.PREVIEW or not isinstance(error, Limited):
                    raise
        raise AssertionError("counting does not end")

    def note_sent(self) -> None:
        """Something was sent that does not wait for its turn here; the platform counts it all the same."""
        self._pace.note_sent(Priority.CONTROL, None, self._clock.now_s())

    async def preview_turn(self, stream: Stream) -> None:
        """Wait until a preview may be sent, and leave the turn to others: only now make its text.

        If that has not changed, nothing is spent. Raises Skipped if there will be no preview.
        """
        await self._turn(self._entered(Priority.PREVIEW, stream))

    def _entered(self, priority: Priority, stream: Stream | None) -> _Waiter:
        """A sender who may wait; of a stream only the newest preview does, and none when there is a final."""
        share = 2 if priority is Priority.PREVIEW else 1  # finals find room where previews do not
        if len(self._waiting) >= self._most_waiting // share:
            raise Limited(LOOK_S)
        if priority in (Priority.PREVIEW, Priority.FINAL):
            self._supersede_previews(stream)
        return _Waiter(priority, stream, next(self._numbers), self._clock.now_s())

    async def _turn(self, waiter: _Waiter) -> None:
        """Wait; when this returns nobody else has run since it was found to be the waiter's turn."""
        self._waiting.append(waiter)
        try:
            while not self._is_turn_of(waiter):
                await self._pause(waiter)
        finally:
            self._waiting.remove(waiter)
            self._wake_all()

    def _is_turn_of(self, waiter: _Waiter) -> bool:
        now_s = self._clock.now_s()
        wait_s = self._wait_s(waiter, now_s)
        left_s = waiter.since_s + self._deadline_s - now_s
        if wait_s == NEVER:
            raise Skipped("the final text will do")
        if wait_s > left_s or left_s <= 0:
            raise Limited(max(wait_s, LEAST_RETRY_S))
        if wait_s > 0:
            return False
        before = (other for other in self._waiting if other.rank(now_s) < waiter.rank(now_s))
        first = next((other for other in before if self._wait_s(other, now_s) == 0), None)
        if first is not None:
            first.woken.set()  # it may sleep for a moment yet
        return first is None

    async def _pause(self, waiter: _Waiter) -> None:
        """Until the waiter may go if nothing changes, or something does."""
        waiter.woken.clear()
        now_s = self._clock.now_s()
        wait_s = self._wait_s(waiter, now_s) or LOOK_S  # it may go, but gives way to somebody
        async with running(self._wake_later(waiter, min(wait_s + MARGIN_S, LOOK_S))):
            await waiter.woken.wait()

    async def _wake_later(self, waiter: _Waiter, wait_s: float) -> None:
        await self._clock.sleep(wait_s)
        waiter.woken.set()

    def _wait_s(self, waiter: _Waiter, now_s: float) -> float:
        if waiter.is_superseded:
            return NEVER
        wait_s = self._pace.wait_s(waiter.priority, waiter.stream, now_s)
        urgency, _ = waiter.rank(now_s)
        return wait_s if wait_s == NEVER else self._pace.wait_s(urgency, waiter.stream, now_s)

    def _note_failure(self, waiter: _Waiter, error: SendError, num_tries: int) -> None:
        if isinstance(error, Limited):
            self._pace.note_limited(_retry_s(error, num_tries), self._clock.now_s())
        if waiter.priority is Priority.PREVIEW and waiter.stream is not None:
            waiter.stream.num_failures += 1

    def _supersede_previews(self, stream: Stream | None) -> None:
        for waiter in self._waiting:
            if waiter.is_preview_of(stream):
                waiter.is_superseded = True
                waiter.woken.set()

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            waiter.woken.set()


def _retry_s(error: Limited, num_tries: int) -> float:
    """How long nothing is sent after `error`, whatever the platform has said."""
    least_s = LEAST_RETRY_S * 2.0 ** min(num_tries, 10)
    named_s = error.retry_after_s if error.retry_after_s > 0 else 0.0  # NaN is not
    return min(max(least_s, named_s), MOST_RETRY_S)
