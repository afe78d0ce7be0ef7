"""The shipped state machines under chance, and proof that chance would notice a broken rule."""

from collections import Counter

import pytest

from tests.protocol.mutants import MUTANTS, first_failure
from tests.protocol.simulator import run

DEFAULT_SCHEDULES = 2_500
ALL_SCHEDULES = 22_500
QUICKLY_CAUGHT = (
    "longest_match finds nothing",
    "a hop ignores the epoch of steps",
    "stale computations count",
    "nothing is replayed",
    "every replay comes from token ids",
    "results are known by position",
    "a fork needs no known tag",
    "late binds of lower epochs are obeyed",
)
HARDLY_CAUGHT = (
    "allows ignores tags",  # first at seed 86,767; test_a_step_on_contents_of_another_name_is_refused
    "seq is not checked",  # not in 150,000; test_a_step_that_came_before_is_never_computed_twice
    "refused attempts are forgotten",  # not in 120,000; test_after_a_refusal_the_rest_of_the_attempt_...
)
"""Rules that chance is too slow for, and the tests that hold them instead."""


def run_many(first: int, last: int) -> Counter[str]:
    total: Counter[str] = Counter()
    for seed in range(first, last):
        outcome = run(seed)
        assert not outcome.diverged, f"python -m tests.protocol.simulator {seed}: {outcome.diverged}"
        assert not outcome.stuck, f"python -m tests.protocol.simulator {seed}: {outcome.stuck}"
        total.update(outcome.counts)
    return total


def test_no_schedule_diverges_or_gets_stuck_and_every_kind_of_fault_was_met() -> None:
    total = run_many(0, DEFAULT_SCHEDULES)
    for kind in ("kill", "freeze", "revive", "suspect", "break_link", "drop_cache", "trim", "drop_log"):
        assert total[kind] > 100, kind
    for kind in ("reopen_control", "expired", "overflows", "failed", "struck_replays", "restarts"):
        assert total[kind] > 100, kind
    for kind in ("rollbacks", "forks", "relayed", "error_busy", "error_gap", "reroutes"):
        assert total[kind] > 100, kind
    # Replays from logs in schedules where no log was cut: there, no survivor may compute anything again.
    assert total["intact_replays"] > 100


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_five_thousand_schedules_end_well() -> None:
    run_many(DEFAULT_SCHEDULES, DEFAULT_SCHEDULES + ALL_SCHEDULES)


def test_a_seed_gives_the_same_schedule_every_time() -> None:
    first, second = run(7), run(7)
    assert (first.events, first.counts) == (second.events, second.counts)


@pytest.mark.parametrize("name", QUICKLY_CAUGHT)
def test_chance_notices_when(name: str) -> None:
    assert first_failure(name, 1_000) is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - {*QUICKLY_CAUGHT, *HARDLY_CAUGHT}))
def test_chance_notices_after_a_long_time_when(name: str) -> None:
    assert first_failure(name, 20_000) is not None
