"""When something was or will be, in words, for platforms that do not know their readers' clocks. Pure."""

from datetime import UTC, datetime

from bot.rendering.counting import counted

MINUTE_MS = 60_000


def in_utc(at_ms: int, now_ms: int) -> str:
    """The time of the day, and how far away that is: `00:00 UTC, in 5 hours`."""
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%H:%M} UTC, {from_now(at_ms, now_ms)}"


def from_now(at_ms: int, now_ms: int) -> str:
    """How far away something is: `in 5 hours`, `2 minutes ago`."""
    minutes = round(abs(at_ms - now_ms) / MINUTE_MS)
    if at_ms > now_ms:
        return f"in {_span(minutes)}" if minutes else "in a moment"
    return f"{_span(minutes)} ago" if minutes else "just now"


def _span(minutes: int) -> str:
    """So long, in the largest unit that fits, to the nearest whole number."""
    if minutes < 60:
        return counted(minutes, "minute")
    hours = round(minutes / 60)
    return counted(hours, "hour") if hours < 24 else counted(round(hours / 24), "day")
