"""Who was there a moment ago and comes again: what decodes is away between two of its tokens. Pure."""

from typing import Generic, TypeVar

PRESENT_S = 1.0
MAX_PRESENT_S = 4.0
GAPS = 2.0
"""Whoever was here is expected again within so many times its longest pause of late, at least PRESENT_S."""
FADING = 0.8
"""What is left of a pause in that with each time after it."""
MAX_REMEMBERED = 4096

K = TypeVar("K")


class Recent(Generic[K]):
    """When each of some peers or sessions was served last, in seconds of some clock that only goes on."""

    def __init__(self) -> None:
        self._seen: dict[K, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, key: K, now_s: float) -> None:
        """Served now. Of too many those are forgotten who were served longest ago."""
        last_s, gap_s = self._seen.pop(key, (now_s, 0.0))
        self._seen[key] = (now_s, max(now_s - last_s, FADING * gap_s) if now_s > last_s else gap_s)
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def last_s(self, key: K, default_s: float) -> float:
        """When it was served last, or `default_s` if that is not known."""
        return self._seen.get(key, (default_s, 0.0))[0]

    def present(self, now_s: float) -> list[K]:
        """Those who are expected again, the newest first."""
        present: list[K] = []
        for key in reversed(self._seen):
            last_s, gap_s = self._seen[key]
            if now_s - last_s > MAX_PRESENT_S:
                break
            if now_s - last_s <= max(PRESENT_S, GAPS * gap_s):
                present.append(key)
        return present
