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
    last_s: float = -math.inf


class Pace(Protocol):
    """The rules of one thing that a platform counts: a channel, or an account."""

    def begin(self, now_s: float) -> Stream:
        """An answer is going to be shown."""

    def end(self, stream: Stream) -> None:
        """Nothing more is shown of it."""

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        """Seconds until something may be sent; 0: now, NEVER: not at all."""

    def note_sent(self, priority: Priority, stream: Stream | None, now_s: float) -> None:
        """It was sent."""

    def note_limited(self, retry_after_s: float, now_s: float) -> None:
        """The platform has refused it for so long."""


@dataclass
class ChannelPace:
    """Discord: so many requests in so many seconds, for each channel; one of them is kept for finals."""

    slots: int = 5
    window_s: float = 5.0
    preview_interval_s: float = 1.25
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
        kept = 1 if priority is Priority.PREVIEW else 0
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
    """Matrix: a leaky bucket for the whole account. Previews become rarer the longer an answer takes."""

    burst: float = 10.0
    per_s: float = 0.2
    kept: float = 4.0
    """Of the bucket, for what is no preview."""
    first_interval_s: float = 1.0
    last_interval_s: float = 5.0
    ramp_s: float = 15.0
    most_edits: int = 60
    most_streams: int = 3
    """With more of them, and a bucket that fills slowly, only finals are sent."""
    slow_per_s: float = 1.0
    _level: float = 0.0
    _at_s: float = -math.inf
    _slowness: float = 1.0
    _streams: set[Stream] = field(default_factory=set)
    _closed_until_s: float = -math.inf

    def begin(self, now_s: float) -> Stream:
        stream = Stream(now_s)
        self._streams.add(stream)
        return stream

    def end(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if not self._streams:
            self._slowness = 1.0

    def wait_s(self, priority: Priority, stream: Stream | None, now_s: float) -> float:
        if priority is Priority.PREVIEW and self._has_no_previews(stream):
            return NEVER
        kept = self.kept if priority is Priority.PREVIEW else 0.0
        above = self._level_at(now_s) + 1.0 - (self.burst - kept)
        waits = [self._closed_until_s - now_s, above / self.per_s]
        if priority is Priority.PREVIEW and stream is not None:
            waits.append(stream.last_s + self._interval_s(stream, now_s) - now_s)
        return max(0.0, *waits)

    def note_sent(self, priority: Priority, stream: Stream | None, now_s: float) -> None:
        self._level, self._at_s = self._level_at(now_s) + 1.0, now_s
        _count(priority, stream, now_s)

    def note_limited(self, retry_after_s: float, now_s: float) -> None:
        self._level, self._at_s = max(self._level_at(now_s), self.burst - 1.0), now_s
        self._slowness *= 2
        self._closed_until_s = max(self._closed_until_s, now_s + retry_after_s)

    def _has_no_previews(self, stream: Stream | None) -> bool:
        is_crowded = len(self._streams) > self.most_streams and self.per_s < self.slow_per_s
        return is_crowded or (stream is not None and stream.num_edits >= self.most_edits)

    def _interval_s(self, stream: Stream, now_s: float) -> float:
        share = min(1.0, (now_s - stream.began_s) / self.ramp_s)
        interval_s = self.first_interval_s + share * (self.last_interval_s - self.first_interval_s)
        return interval_s * self._slowness

    def _level_at(self, now_s: float) -> float:
        elapsed_s = now_s - self._at_s
        return 0.0 if math.isinf(elapsed_s) else max(0.0, self._level - elapsed_s * self.per_s)


def _count(priority: Priority, stream: Stream | None, now_s: float) -> None:
    if stream is not None:
        stream.last_s = now_s
        stream.num_edits += priority is Priority.PREVIEW
