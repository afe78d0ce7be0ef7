"""When something was or will be, in words."""

import pytest

from bot.rendering.moments import from_now, in_utc

DAY_MS = 86_400_000
HOUR_MS = DAY_MS // 24
MINUTE_MS = HOUR_MS // 60
MIDNIGHT = 20_000 * DAY_MS


@pytest.mark.parametrize(
    ("before_ms", "shown"),
    [
        (5 * HOUR_MS, "00:00 UTC, in 5 hours"),
        (5 * HOUR_MS + 40 * MINUTE_MS, "00:00 UTC, in 6 hours"),
        (HOUR_MS, "00:00 UTC, in 1 hour"),
        (HOUR_MS - 20_000, "00:00 UTC, in 1 hour"),
        (59 * MINUTE_MS, "00:00 UTC, in 59 minutes"),
        (MINUTE_MS, "00:00 UTC, in 1 minute"),
        (1000, "00:00 UTC, in a moment"),
        (DAY_MS, "00:00 UTC, in 1 day"),
    ],
)
def test_what_comes_is_told_in_utc_and_by_how_far_away_it_is(before_ms: int, shown: str) -> None:
    assert in_utc(MIDNIGHT, MIDNIGHT - before_ms) == shown


def test_the_time_of_day_is_that_in_utc() -> None:
    assert in_utc(MIDNIGHT + 13 * HOUR_MS + 5 * MINUTE_MS, MIDNIGHT).startswith("13:05 UTC, ")


@pytest.mark.parametrize(
    ("ago_ms", "shown"),
    [
        (0, "just now"),
        (29_000, "just now"),
        (MINUTE_MS, "1 minute ago"),
        (2 * MINUTE_MS + 20_000, "2 minutes ago"),
        (HOUR_MS, "1 hour ago"),
        (23 * HOUR_MS, "23 hours ago"),
        (40 * HOUR_MS, "2 days ago"),
        (400 * DAY_MS, "400 days ago"),
    ],
)
def test_what_was_is_told_by_how_long_ago_it_is(ago_ms: int, shown: str) -> None:
    assert from_now(MIDNIGHT, MIDNIGHT + ago_ms) == shown
