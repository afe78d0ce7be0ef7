"""What was said a moment ago need not be said again. Pure."""

from collections.abc import Callable, Hashable

MOST_KEYS = 10_000


class Once:
    """Remembers for `within_s` seconds what was said; beyond MOST_KEYS the oldest is forgotten first."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._said_s: dict[Hashable, float] = {}

    def is_first(self, key: Hashable, now_s: float) -> bool:
        """Tell whether this was not said a moment ago; it is now."""
        said_s = self._said_s.get(key)
        if said_s is not None and now_s - said_s < self._within_s:
            return False
        self._said_s.pop(key, None)
        if len(self._said_s) >= MOST_KEYS:
            del self._said_s[next(iter(self._said_s))]
        self._said_s[key] = now_s
        return True

    def forget_those(self, is_meant: Callable[[Hashable], bool]) -> None:
        """Say them again when there is reason to."""
        self._said_s = {key: said_s for key, said_s in self._said_s.items() if not is_meant(key)}
