"""How far we have read Discord, place by place, so that after a restart nothing is left unanswered. Pure."""

from collections.abc import Iterable

import msgspec

MOST_PLACES = 50
ACTIVE_S = 7 * 86_400.0
MARKER = "places"
DISCORD_EPOCH_MS = 1_420_070_400_000


def moment_ms(snowflake: int) -> int:
    """When an id was made: milliseconds since 1970."""
    return (snowflake >> 22) + DISCORD_EPOCH_MS


def thread_marker(thread_id: int | str) -> str:
    """The marker of a thread in which we are talked to: from then on all that is said there is for us."""
    return f"thread:{thread_id}"


class Places:
    """The newest message or command that we know of each place where people have talked to us.

    A place that is still to be read on stays where it was, whatever is heard there meanwhile.
    """

    def __init__(self, kept: str | None = None) -> None:
        self._newest: dict[int, int] = {}
        self._meanwhile: dict[int, int] = {}
        """The newest that was heard in places that are to be read on."""
        if kept is not None:
            self._newest = msgspec.json.decode(kept, type=dict[int, int])

    def __contains__(self, place_id: int) -> bool:
        """People have talked to us there."""
        return place_id in self._newest

    def note(self, place_id: int, event_id: int) -> dict[str, str]:
        """Somebody has talked to us there; returns the marker that is to be kept together with it."""
        self._go_on(place_id, event_id)
        if len(self._newest) > MOST_PLACES:
            oldest = min(self._newest, key=self._newest.__getitem__)
            del self._newest[oldest]
            self._meanwhile.pop(oldest, None)
        return self._marker()

    def forget(self, place_id: int) -> dict[str, str]:
        """There is nothing to be read there any more; returns the marker that is to be kept."""
        self._newest.pop(place_id, None)
        self._meanwhile.pop(place_id, None)
        return self._marker()

    def note_seen(self, place_id: int, event_id: int) -> None:
        """There is a newer message, which is not for us: it need not be read again."""
        if place_id in self._newest:
            self._go_on(place_id, event_id)

    def hold(self, place_ids: Iterable[int]) -> None:
        """These places are to be read on from where they are."""
        for place_id in place_ids:
            self._meanwhile.setdefault(place_id, 0)

    def let_go(self, place_id: int) -> dict[str, str]:
        """That place was read, or cannot be; returns the marker that is to be kept, if it is another now."""
        newest = self._meanwhile.pop(place_id, 0)
        if newest <= self._newest.get(place_id, newest):
            return {}
        self._newest[place_id] = newest
        return self._marker()

    def _go_on(self, place_id: int, event_id: int) -> None:
        kept = self._meanwhile if place_id in self._meanwhile else self._newest
        kept[place_id] = max(event_id, kept.get(place_id, 0))

    def _marker(self) -> dict[str, str]:
        return {MARKER: msgspec.json.encode(self._newest).decode()}

    def active(self, now_ms: int) -> dict[int, int]:
        """The places where something happened in the last seven days, with what is known of them."""
        since_ms = now_ms - ACTIVE_S * 1000
        return {place: newest for place, newest in self._newest.items() if moment_ms(newest) >= since_ms}
