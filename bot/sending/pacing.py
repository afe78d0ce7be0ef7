"""When a message may be sent or edited: platforms allow few of each, and what matters goes first. Pure.

A final text comes before an error, that before a first post, that before a control; a preview comes last, and
only where something is left for the others. Whoever waits is asked again later, with newer text.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

NEVER = math.inf
MOST_FAILURES = 3
"""After so many an answer is shown when it is complete."""


class Priority(IntEnum):
    """What is to be sent, the most important first."""

    FINAL = 0
    NOTICE = 1
    FIRST_POST = 2
    CONTROL = 3
    PREVIEW = 4


@dataclass(eq=False, slots=True)
class Stream:
    """An answer that is being shown."""

    began_s: float
    num_edits: int = 0
    num_failures: int = 0
    """Previews that the platform did not take."""
    last_s: float = -math.inf


class Pace(Protocol):
    """The rules of one thing that a platform counts: a channel, or an account."""

    def begin(self, now_s: float) -> Stream:
        """An answer is going to be shown."""

    def end(self, stream: Stream) -> None:
        """Nothing more is shown of it."""

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        """Seconds until something may be sent; 0: now, NEVER: not at all (previews and first posts only)."""

    def note_sent(self, priority: Priority, stream: Stream | None, now_s: float) -> None:
        """It was sent."""

    def note_limited(self, retry_after_s: float, now_s: float) -> None:
        """The platform has not taken what was sent, nor will it take anything for so long."""


@dataclass
class ChannelPace:
    """Discord: so many requests in so many seconds, for each channel; one of them is kept for finals."""

    slots: int = 5
    window_s: float = 5.0
    preview_interval_s: float = 1.25
    """For each answer that is shown in the channel."""
    _sent_s: deque[float] = field(default_factory=deque)
    _streams: set[Stream] = field(default_factory=set)
    _closed_until_s: float = -math.inf

    def begin(self, now_s: float) -> Stream:
        stream = Stream(now_s)
        self._streams.add(stream)
        return stream

    def end(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        if priority is Priority.PREVIEW and _has_failed(stream):
            return NEVER
        kept = 1 if priority > Priority.NOTICE else 0
        waits = [self._closed_until_s - now_s, self._slot_wait_s(self.slots - kept, now_s)]
        if priority is Priority.PREVIEW and stream is not None:
            interval_s = self.preview_interval_s * max(1, len(self._streams))
            waits.append(stream.last_s + interval_s - now_s)
        return max(0.0, *waits)

    def note_sent(self, priority: Priority, stream: Stream | None, now_s: float) -> None:
        self._sent_s.append(now_s)
        _count(priority, stream, now_s)

    def note_limited(self, retry_after_s: float, now_s: float) -> None:
        self._closed_until_s = max(self._closed_until_s, now_s + retry_after_s)

    def _slot_wait_s(self, slots: int, now_s: float) -> float:
        while self._sent_s and self._sent_s[0] <= now_s - self.window_s:
            self._sent_s.popleft()
        if len(self._sent_s) < slots:
            return 0.0
        return self._sent_s[len(self._sent_s) - slots] + self.window_s - now_s


@dataclass
class AccountPace:
    """Matrix: a leaky bucket for the whole account. Previews become rarer the longer an answer takes.

    Every event that the account sends adds one to its level, which falls by `per_s`; what would lift it above
    `burst` is refused, and adds nothing (Synapse, `rc_message`).
    """

    burst: float = 10.0
    per_s: float = 0.2
    kept: float = 4.0
    """Of the bucket, for what is no preview."""
    first_interval_s: float = 1.0
    last_interval_s: float = 5.0
    ramp_s: float = 15.0
    most_edits: int = 60
    """Of one answer, the final one included: clients load them all."""
    most_streams: int = 3
    """With more of them, and a bucket that empties slowly, only finals are sent."""
    slow_per_s: float = 1.0
    slow_for_s: float = 60.0
    """After a refusal previews are twice as rare, for so long."""
    most_slowness: float = 16.0
    _level: float = 0.0
    _at_s: float = -math.inf
    _slowness: float = 1.0
    _slow_until_s: float = -math.inf
    _streams: set[Stream] = field(default_factory=set)
    _closed_until_s: float = -math.inf

    def begin(self, now_s: float) -> Stream:
        stream = Stream(now_s)
        self._streams.add(stream)
        return stream

    def end(self, stream: Stream) -> None:
        self._streams.discard(stream)

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        if self._is_left_out(priority, stream):
            return NEVER
        kept = self.kept if priority is Priority.PREVIEW else 1.0 if priority > Priority.NOTICE else 0.0
        above = self._level_at(now_s) + 1.0 - (self.burst - kept)
        waits = [self._closed_until_s - now_s, above / self.per_s]
        if priority is Priority.PREVIEW and stream is not None:
            waits.append(stream.last_s + self._interval_s(stream, now_s) - now_s)
        return max(0.0, *waits)

    def note_sent(self, priority: Priority, stream: Stream | None, now_s: float) -> None:
        self._level, self._at_s = self._level_at(now_s) + 1.0, now_s
        _count(priority, stream, now_s)

    def note_limited(self, retry_after_s: float, now_s: float) -> None:
        # What the server says is true: others may use the account, and we may have been started anew.
        self._level, self._at_s = self.burst - 1.0 + retry_after_s * self.per_s, now_s
        self._closed_until_s = max(self._closed_until_s, now_s + retry_after_s)
        self._slowness = min(2 * self._slowness_at(now_s), self.most_slowness)
        self._slow_until_s = now_s + self.slow_for_s

    def _is_left_out(self, priority: Priority, stream: Stream | None) -> bool:
        if priority not in (Priority.PREVIEW, Priority.FIRST_POST):
            return False
        if len(self._streams) > self.most_streams and self.per_s < self.slow_per_s:
            return True
        has_enough = stream is not None and stream.num_edits >= self.most_edits - 1
        return priority is Priority.PREVIEW and (has_enough or _has_failed(stream))

    def _interval_s(self, stream: Stream, now_s: float) -> float:
        share = min(1.0, (now_s - stream.began_s) / self.ramp_s)
        interval_s = self.first_interval_s + share * (self.last_interval_s - self.first_interval_s)
        return interval_s * self._slowness_at(now_s)

    def _slowness_at(self, now_s: float) -> float:
        return self._slowness if now_s < self._slow_until_s else 1.0

    def _level_at(self, now_s: float) -> float:
        elapsed_s = now_s - self._at_s
        return 0.0 if math.isinf(elapsed_s) else max(0.0, self._level - elapsed_s * self.per_s)


def _count(priority: Priority, stream: Stream | None, now_s: float) -> None:
    if stream is not None:
        stream.last_s = now_s
        stream.num_edits += priority is Priority.PREVIEW


def _has_failed(stream: Stream | None) -> bool:
    return stream is not None and stream.num_failures >= MOST_FAILURES
