"""What a hop sent, kept in host memory so that a lost successor's cache can be computed again.

The log is a convenience: any part of it may be dropped at any time, and `start` tells what is left.
Payloads are opaque here: they can be sliced along their tokens, and a function tells their bytes.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from swarm.wire.messages import StartReplay, StateStep

REPLAY_CHUNK_TOKENS = 256

Payload = Any
"""`[tokens, ...]`: a tensor in the server, a list in the simulator; slicing takes tokens."""


class PayloadOperations(Protocol):
    """What the log must know of its payloads."""

    def num_bytes(self, payload: Payload) -> int:
        """Bytes that the payload holds in memory."""

    def join(self, payloads: list[Payload]) -> Payload:
        """One payload of all tokens, in order."""

    def first(self, payload: Payload, num_tokens: int) -> Payload:
        """The first tokens, in memory of their own: a slice would keep that of all the others."""


class ReplayLog:
    """One session's log: `[start, end)` without holes."""

    def __init__(self, budget: "LogBudget") -> None:
        self._chunks: deque[tuple[int, int, Payload]] = deque()
        self._budget = budget
        self._end = 0
        self._is_closed = False

    @property
    def start(self) -> int:
        """First position that is still held; equal to `end` when nothing is."""
        return self._chunks[0][0] if self._chunks else self._end

    @property
    def end(self) -> int:
        """Position behind the last one that was sent."""
        return self._end

    def append(self, position: int, num_tokens: int, payload: Payload) -> None:
        """Add what was sent for `[position, position + num_tokens)`; replaces what was above.

        Does nothing once the log is closed: a step may outlive its session by a moment.
        """
        if self._is_closed:
            return
        self.truncate(position)
        if position != self._end:
            self.clear()
        self._end = position + num_tokens
        if num_tokens:
            self._chunks.append((position, num_tokens, payload))
            self._budget.charge(self, payload)

    def skip(self, end: int) -> None:
        """Hold nothing up to `end`: nobody behind the last hop can need it."""
        self.clear()
        self._end = end

    def truncate(self, position: int) -> None:
        """Forget everything from `position` on."""
        while self._chunks and self._chunks[-1][0] >= position:
            self._budget.refund(self, self._chunks.pop()[2])
        if self._chunks:
            start, num_tokens, payload = self._chunks[-1]
            if start + num_tokens > position:
                kept = self._budget.operations.first(payload, position - start)
                self._chunks[-1] = (start, position - start, kept)
                self._budget.refund(self, payload[position - start :])
        self._end = min(self._end, position)

    def clear(self) -> None:
        """Forget everything that is held; `end` stays."""
        while self._chunks:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Give up the oldest chunk."""
        self._budget.refund(self, self._chunks.popleft()[2])

    @property
    def chunk_tokens(self) -> int:
        """Tokens that one replayed step holds at most, unless it was a longer step already."""
        return self._budget.chunk_tokens

    def join(self, payloads: list[Payload]) -> Payload:
        """One payload of all tokens, in order."""
        return self._budget.operations.join(payloads)

    def covers(self, start: int, end: int) -> bool:
        """Tell whether `[start, end)` can be replayed from here."""
        return self.start <= start and end <= self._end

    def read(self, start: int, end: int) -> Iterator[tuple[int, int, Payload]]:
        """Chunks of `[start, end)` in order, as (position, tokens, payload)."""
        for position, num_tokens, payload in list(self._chunks):
            first, last = max(start, position), min(end, position + num_tokens)
            if first < last:
                yield first, last - first, payload[first - position : last - position]

    def fork(self, position: int) -> "ReplayLog":
        """Log of a child that shares `[start, position)`; payloads are shared, never written again."""
        child = ReplayLog(self._budget)
        for first, num_tokens, payload in self.read(0, position):
            child._end = max(child._end, first)
            child.append(first, num_tokens, payload)
        if child._end < position:
            child._end = position
        return child

    def close(self) -> None:
        """Give everything back to the budget, and hold nothing more."""
        self._is_closed = True
        self.clear()
        self._budget.forget(self)


class LogBudget:
    """Bytes that all logs of a server may hold together; the session that logged longest ago pays first."""

    def __init__(
        self, max_bytes: int, operations: PayloadOperations, chunk_tokens: int = REPLAY_CHUNK_TOKENS
    ) -> None:
        self._max_bytes = max_bytes
        self.operations = operations
        self.chunk_tokens = chunk_tokens
        self._logs: OrderedDict[int, tuple[ReplayLog, int]] = OrderedDict()
        self.used_bytes = 0

    def charge(self, log: ReplayLog, payload: Payload) -> None:
        """Account for a payload that `log` now holds; drops the oldest logs' chunks beyond the limit."""
        self._move(log, self.operations.num_bytes(payload))
        if id(log) in self._logs:
            self._logs.move_to_end(id(log))
        while self.used_bytes > self._max_bytes:
            oldest, _ = next(iter(self._logs.values()))
            oldest.drop_oldest()

    def refund(self, log: ReplayLog, payload: Payload) -> None:
        """Account for a payload that `log` gave up."""
        self._move(log, -self.operations.num_bytes(payload))

    def forget(self, log: ReplayLog) -> None:
        """Stop knowing a log that is empty for good."""
        self._logs.pop(id(log), None)

    def _move(self, log: ReplayLog, change: int) -> None:
        _, held = self._logs.get(id(log), (log, 0))
        self.used_bytes += change
        self._logs[id(log)] = (log, held + change)
        if held + change == 0:
            del self._logs[id(log)]


def replayed_steps(
    order: StartReplay, log: ReplayLog, tag_at: Callable[[int], int | None]
) -> Iterator[tuple[StateStep, Callable[[], Payload]]]:
    """What a StartReplay asks for; decode steps are joined, so that a replay costs what a prefill does.

    Payloads are made when they are called for: joined, they lie in memory a second time.

    `tag_at(position)` names the contents up to a step boundary; the log is cut nowhere else.
    """
    start, base_tag = order.start, order.start_tag
    for end, parts in _joined(order.start, order.end, log):
        tag = order.end_tag if end == order.end else tag_at(end)
        assert tag is not None, "the log is cut at step boundaries"
        step = StateStep(
            epoch=order.epoch,
            position=start,
            num_tokens=end - start,
            base_tag=base_tag,
            tag=tag,
            stop_stage=order.stop_stage,
        )
        yield step, partial(log.join, parts)
        start, base_tag = end, tag


def _joined(start: int, end: int, log: ReplayLog) -> Iterator[tuple[int, list[Payload]]]:
    """(position behind, payloads) of neighbouring chunks that together stay below the limit."""
    parts: list[Payload] = []
    for position, num_tokens, payload in log.read(start, end):
        if parts and position + num_tokens - start > log.chunk_tokens:
            yield position, parts
            start, parts = position, []
        parts.append(payload)
    yield end, parts
