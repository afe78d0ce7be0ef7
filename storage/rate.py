"""How often somebody may ask: a token bucket for each, in integers, forgotten when it is full again.

Follows the generic cell rate algorithm (ITU-T I.371, annex A): one moment for each key, that at which its
bucket will be full. Moments are those of a clock that only goes on.
"""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, then one every `interval_ms`."""

    burst: int
    interval_ms: int


class TokenBuckets:
    """Buckets of at most `most_keys` askers; beyond that the fullest one is forgotten first."""

    def __init__(self, rate: Rate, *, most_keys: int = 10_000) -> None:
        self._rate = rate
        self._most_keys = most_keys
        self._full_at_ms: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._full_at_ms)

    def take(self, key: Hashable, now_ms: int) -> int:
        """Take a token of `key`'s bucket; returns 0, or the milliseconds until there is one."""
        full_at_ms = max(now_ms, self._full_at_ms.get(key, now_ms))
        wait_ms = full_at_ms - now_ms - (self._rate.burst - 1) * self._rate.interval_ms
        if wait_ms > 0:
            return wait_ms
        self._make_room(key, now_ms)
        self._full_at_ms[key] = full_at_ms + self._rate.interval_ms
        return 0

    def _make_room(self, key: Hashable, now_ms: int) -> None:
        if key in self._full_at_ms or len(self._full_at_ms) < self._most_keys:
            return
        self._full_at_ms = {each: at for each, at in self._full_at_ms.items() if at > now_ms}
        while len(self._full_at_ms) >= self._most_keys:
            del self._full_at_ms[min(self._full_at_ms, key=self._full_at_ms.__getitem__)]
