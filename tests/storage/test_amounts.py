"""What a turn costs and what a day grants."""

from hypothesis import given
from hypothesis import strategies as st

from storage.amounts import DAY_MS, Rates, affordable_tokens, charge, grant, next_period_ms, period_of

COUNTS = st.integers(0, 10**6)
RATES = st.builds(
    Rates,
    daily_grant=COUNTS,
    balance_cap=COUNTS,
    prefill_percent=st.integers(0, 400),
    least_new_tokens=st.integers(1, 500),
)


def test_behaviour_21_a_turn_costs_what_it_wrote_and_a_share_of_what_it_read() -> None:
    rates = Rates(prefill_percent=25)
    assert charge(rates, new_tokens=10, prefill_tokens=7) == 11
    assert charge(rates, new_tokens=0, prefill_tokens=7000) == 0, "nothing was shown"


@given(RATES, COUNTS, COUNTS, st.integers(1, 10**5))
def test_what_is_affordable_can_be_paid_and_is_never_cut_below_the_least(
    rates: Rates, available: int, prefill: int, wanted: int
) -> None:
    tokens = affordable_tokens(rates, available, prefill_tokens=prefill, max_new_tokens=wanted)
    assert tokens == 0 or min(rates.least_new_tokens, wanted) <= tokens <= wanted
    assert charge(rates, new_tokens=tokens, prefill_tokens=prefill) <= available
    one_more = charge(rates, new_tokens=tokens + 1, prefill_tokens=prefill)
    assert not 0 < tokens < wanted or one_more > available, "it gets all that it can pay for"


@given(RATES, COUNTS)
def test_a_grant_never_lifts_a_balance_above_the_cap(rates: Rates, balance: int) -> None:
    given_today = grant(rates, balance)
    assert 0 <= given_today <= rates.daily_grant
    assert given_today == 0 or balance + given_today <= rates.balance_cap


@given(st.integers(0, 4 * 10**12))
def test_behaviour_22_days_begin_at_midnight_utc(now_ms: int) -> None:
    following = next_period_ms(now_ms)
    assert now_ms < following <= now_ms + DAY_MS
    assert period_of(following - 1) == period_of(now_ms) < period_of(following)
