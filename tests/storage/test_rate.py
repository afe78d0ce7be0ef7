"""Token buckets: bursts are allowed, then one at a time, and nobody can fill our memory with names."""

from hypothesis import given
from hypothesis import strategies as st

from storage.rate import Rate, TokenBuckets

RATE = Rate(burst=3, interval_ms=1000)


def test_a_burst_is_allowed_and_then_one_an_interval() -> None:
    buckets = TokenBuckets(RATE)
    assert [buckets.take("ada", 0) for _ in range(5)] == [0, 0, 0, 1000, 1000]
    assert [buckets.take("ada", at) for at in (999, 1000, 1001, 2000)] == [1, 0, 999, 0]


def test_one_asker_does_not_slow_another() -> None:
    buckets = TokenBuckets(RATE)
    for _ in range(5):
        buckets.take("ada", 0)
    assert buckets.take("bob", 0) == 0


@given(st.lists(st.integers(0, 500), min_size=1, max_size=200))
def test_in_any_time_no_more_are_allowed_than_the_rate_says(pauses: list[int]) -> None:
    buckets, now, allowed = TokenBuckets(RATE), 0, []
    for pause in pauses:
        now += pause
        if buckets.take("ada", now) == 0:
            allowed.append(now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            elapsed = allowed[last] - allowed[first]
            assert last - first + 1 <= RATE.burst + elapsed / RATE.interval_ms


def test_who_has_waited_as_long_as_was_said_is_allowed() -> None:
    buckets = TokenBuckets(RATE)
    for now in range(0, 5000, 137):
        wait = buckets.take("ada", now)
        assert wait == 0 or TokenBucketsCopy(buckets).take("ada", now + wait) == 0


class TokenBucketsCopy(TokenBuckets):
    """What a set of buckets would say, without taking anything from it."""

    def __init__(self, original: TokenBuckets) -> None:
        super().__init__(original._rate)
        self._full_at_ms = dict(original._full_at_ms)


def test_names_are_forgotten_when_there_are_too_many() -> None:
    buckets = TokenBuckets(RATE, most_keys=10)
    for _ in range(4):
        buckets.take("busy", 0)
    for number in range(1000):
        assert buckets.take(number, 0) == 0
        assert len(buckets) <= 10
    assert buckets.take("busy", 0) > 0, "those with most in their buckets are forgotten first"
