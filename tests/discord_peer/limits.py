"""Rate limits: buckets per route and major parameter, the headers that tell of them, one limit over all."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from tests.discord_peer.clock import TurnableClock
from tests.discord_peer.refusals import TooManyRequests


@dataclass(frozen=True)
class Limit:
    """`num` requests in `per_s` seconds, counted from the first. Routes with the same `bucket` share them."""

    num: int
    per_s: float
    bucket: str = ""


OTHERS = Limit(50, 1.0)
EVERYTHING = Limit(50, 1.0)
# What Discord does now, as far as clients can see; it publishes no numbers and may change them.
LIMITS: dict[str, Limit] = {
    "POST /channels/{channel_id}/messages": Limit(5, 5.0),
    "PATCH /channels/{channel_id}/messages/{message_id}": Limit(5, 5.0),
    "DELETE /channels/{channel_id}/messages/{message_id}": Limit(5, 1.0),
    "POST /channels/{channel_id}/typing": Limit(5, 5.0),
    "PUT /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me": Limit(
        1, 0.25, "reactions"
    ),
    "DELETE /channels/{channel_id}/messages/{message_id}/reactions/{emoji_name}/@me": Limit(
        1, 0.25, "reactions"
    ),
    "POST /webhooks/{webhook_id}/{webhook_token}": Limit(5, 2.0, "webhook"),
    "PATCH /webhooks/{webhook_id}/{webhook_token}/messages/@original": Limit(5, 2.0, "webhook"),
    "PATCH /webhooks/{webhook_id}/{webhook_token}/messages/{message_id}": Limit(5, 2.0, "webhook"),
}
UNLIMITED = "POST /interactions/{interaction_id}/{interaction_token}/callback"
MAJOR = ("channel_id", "guild_id", "webhook_id", "webhook_token")


class Window:
    """Counts requests since the first one of a span."""

    def __init__(self) -> None:
        self.ends_s = 0.0
        self.used = 0

    def take(self, limit: Limit, now_s: float) -> bool:
        """Count one more; False if that is one too many, and then it does not count."""
        if now_s >= self.ends_s:
            self.ends_s = now_s + limit.per_s
            self.used = 0
        if self.used >= limit.num:
            return False
        self.used += 1
        return True


class Buckets:
    """Says of each request whether it may pass, and what its answer tells about the next."""

    def __init__(self, clock: TurnableClock, limits: Mapping[str, Limit], everything: Limit) -> None:
        self._clock = clock
        self._limits = LIMITS | dict(limits)
        self._everything = everything
        self._all = Window()
        self._windows: dict[tuple[str, ...], Window] = {}

    def take(self, route: str, params: Mapping[str, str]) -> dict[str, str]:
        """Headers for the answer. Raises TooManyRequests, with the same headers, if a limit is used up."""
        if route == UNLIMITED:
            return {}
        now_s = self._clock.now_s()
        is_counted = "/webhooks/" not in route
        if is_counted and not self._all.take(self._everything, now_s):
            raise TooManyRequests(self._all.ends_s - now_s, is_global=True)
        limit = self._limits.get(route, OTHERS)
        name = limit.bucket or route
        major = tuple(params[key] for key in MAJOR if key in params)
        window = self._windows.setdefault((name, *major), Window())
        passed = window.take(limit, now_s)
        headers = {
            "X-RateLimit-Limit": str(limit.num),
            "X-RateLimit-Remaining": str(limit.num - window.used),
            "X-RateLimit-Reset": f"{window.ends_s:.3f}",
            "X-RateLimit-Reset-After": f"{max(window.ends_s - now_s, 0.001):.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(name.encode()).hexdigest()[:32],
        }
        if passed:
            return headers
        refusal = TooManyRequests(window.ends_s - now_s)
        refusal.headers |= headers
        raise refusal
