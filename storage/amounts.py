"""Arithmetic of the quota: what a turn costs, what a day grants. Pure; integers only."""

from dataclasses import dataclass
from datetime import UTC, datetime

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Rates:
    """What the operator has set: credits, percent, tokens."""

    daily_grant: int = 20_000
    balance_cap: int = 60_000
    """A grant never lifts a balance above this."""
    prefill_percent: int = 25
    """Of a token that is written, what one that is read costs."""
    least_new_tokens: int = 64
    """A turn that cannot pay for so many is refused instead of cut short."""


def charge(rates: Rates, *, new_tokens: int, prefill_tokens: int) -> int:
    """Credits for `new_tokens` that were shown, after reading `prefill_tokens`; nothing shown is free."""
    return new_tokens + prefill_tokens * rates.prefill_percent // 100 if new_tokens else 0


def affordable_tokens(rates: Rates, available: int, *, prefill_tokens: int, max_new_tokens: int) -> int:
    """How many new tokens `available` credits pay for beside the prefill: `max_new_tokens`, fewer, or 0."""
    left = available - prefill_tokens * rates.prefill_percent // 100
    least = min(rates.least_new_tokens, max_new_tokens)
    return min(max_new_tokens, left) if left >= least else 0


def grant(rates: Rates, balance: int) -> int:
    """Today's grant for a balance."""
    return max(0, min(rates.daily_grant, rates.balance_cap - balance))


def period_of(now_ms: int) -> str:
    """The day a moment belongs to, in UTC: `2026-11-26`."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()


def next_period_ms(now_ms: int) -> int:
    """When the next day begins, in UTC."""
    return (now_ms // DAY_MS + 1) * DAY_MS
