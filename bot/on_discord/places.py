"""How far we have read Discord, place by place, so that after a restart nothing is left unanswered. Pure."""

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
    """The newest message or command that we know of each place where people have talked to us."""

    def __init__(self, kept: str | None = None) -> None:
        self._newest: dict[int, int] = {}
        if kept is not None:
            self._newest = msgspec.json.decode(kept, type=dict[int, int])

    def note(self, place_id: int, event_id: int) -> dict[str, str]:
        """Somebody has talked to us there; returns the marker that is to be kept together with it."""
        self._newest[place_id] = max(event_id, self._newest.get(place_id, 0))
        if len(self._newest) > MOST_PLACES:
            del self._newest[min(self._newest, key=self._newest.__getitem__)]
        return {MARKER: msgspec.json.encode(self._newest).decode()}

    def forget(self, place_id: int) -> dict[str, str]:
        """There is nothing to be read there any more; returns the marker that is to be kept."""
        self._newest.pop(place_id, None)
        return {MARKER: msgspec.json.encode(self._newest).decode()}

    def note_seen(self, place_id: int, event_id: int) -> None:
        """There is a newer message, which is not for us: it need not be read again."""
        if place_id in self._newest:
            self._newest[place_id] = max(event_id, self._newest[place_id])

    def active(self, now_ms: int) -> dict[int, int]:
        """The places where something happened in the last seven days, with what is known of them."""
        since_ms = now_ms - ACTIVE_S * 1000
        return {place: newest for place, newest in self._newest.items() if moment_ms(newest) >= since_ms}
