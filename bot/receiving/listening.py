"""For how long each platform has been heard without a break. Pure.

Only what was said before that can have waited for us. By the platform's clock alone nobody can tell: it may
differ from ours, and from that of another homeserver.
"""

BREAK_S = 600.0
"""Whoever says nothing for so long may have been out of reach."""


class Listening:
    """Moments are of a clock that only goes on."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}
        self._heard_s: dict[str, float] = {}

    def hear(self, platform: str, now_s: float) -> None:
        """A platform is heard now, whatever it says."""
        heard_s = self._heard_s.get(platform)
        if heard_s is None or now_s - heard_s >= BREAK_S:
            self._since_s[platform] = now_s
        self._heard_s[platform] = now_s

    def length_s(self, platform: str, now_s: float) -> float:
        """For how long it has been heard."""
        return now_s - self._since_s.get(platform, now_s)
