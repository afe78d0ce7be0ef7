"""What a batch costs beside its rows: a straight line tells it, and nothing spoils the line for long."""

import pytest

from server.batch_cost import MAX_AGE_S, MIN_SEEN, MOST_ROWS, UNKNOWN_ROWS, BatchCost


def batch_s(rows: int) -> float:
    """4.5 ms a batch and half a millisecond a row: so the tiny model on a CPU."""
    return 0.0045 + 0.0005 * rows


def after(*batches: int, now_s: float = 0.0) -> BatchCost:
    cost = BatchCost()
    for rows in batches * MIN_SEEN:
        cost.ran(rows, batch_s(rows), now_s)
    return cost


@pytest.mark.parametrize("batches", [(), (1,), (5, 6, 7)])
def test_batches_of_one_size_tell_nothing(batches: tuple[int, ...]) -> None:
    assert after(*batches).fixed_rows(0.0) == UNKNOWN_ROWS


@pytest.mark.parametrize("batches", [(1, 120), (120, 1), (1, 1, 2, 13, 13, 120, 44), (2, 4), (13, 300)])
def test_batches_of_two_sizes_tell_what_comes_once_a_batch(batches: tuple[int, ...]) -> None:
    assert after(*batches).fixed_rows(0.0) == pytest.approx(9.0)


def test_rows_that_cost_nothing_are_as_many_as_one_likes() -> None:
    cost = BatchCost()
    for rows in (1, 64) * MIN_SEEN:
        cost.ran(rows, 0.003, 0.0)
    assert cost.fixed_rows(0.0) == MOST_ROWS


def test_rows_that_cost_as_much_as_a_batch_leave_nothing_over() -> None:
    cost = BatchCost()
    for rows in (1, 10) * MIN_SEEN:
        cost.ran(rows, 0.001 * rows, 0.0)
    assert cost.fixed_rows(0.0) == pytest.approx(0.0)


def test_a_batch_that_something_else_made_long_counts_little() -> None:
    cost = after(1, 120)
    for rows in (1, 120):
        cost.ran(rows, 10 * batch_s(rows), 1.0)
    assert cost.fixed_rows(1.0) == pytest.approx(9.0, rel=0.2)


def test_a_first_batch_that_something_else_made_long_is_soon_forgotten() -> None:
    cost = BatchCost()
    cost.ran(1, 0.1, 0.0)
    for _ in range(10):
        cost.ran(120, batch_s(120), 0.0)
        cost.ran(1, batch_s(1), 0.0)
    assert cost.fixed_rows(0.0) == pytest.approx(9.0, rel=0.1)


def test_one_row_takes_no_longer_than_many() -> None:
    cost = after(13, 120)
    for _ in range(MIN_SEEN):
        cost.ran(1, 0.05, 0.0)
    assert cost.fixed_rows(0.0) < 30


def test_a_size_that_does_not_come_again_is_forgotten() -> None:
    cost = after(1, 120)
    cost.ran(1, batch_s(1), MAX_AGE_S)
    assert cost.fixed_rows(MAX_AGE_S) != UNKNOWN_ROWS
    cost.ran(1, batch_s(1), 1.5 * MAX_AGE_S)
    assert cost.fixed_rows(1.5 * MAX_AGE_S) == UNKNOWN_ROWS


def test_work_that_has_changed_is_followed() -> None:
    cost = after(1, 120)
    for _ in range(300):
        cost.ran(1, 3 * batch_s(1), 0.0)
        cost.ran(120, 3 * batch_s(1), 0.0)
    assert cost.fixed_rows(0.0) > 1000


def test_a_prompt_token_costs_what_it_adds_to_a_batch() -> None:
    cost = after(1, 120)
    cost.ran_prompt(10, 50, batch_s(10) + 50 * 0.0002, 0.0)
    assert cost.prompt_tokens(1, 0.0) == pytest.approx(batch_s(1) / 0.0002)
    assert cost.prompt_tokens(20, 0.0) == pytest.approx(batch_s(20) / 0.0002)


def test_the_newest_prompts_tell_what_a_token_costs() -> None:
    cost = after(1, 120)
    cost.ran_prompt(1, 50, 3.0, 0.0)
    for _ in range(40):
        cost.ran_prompt(1, 50, batch_s(1) + 50 * 0.0002, 0.0)
    assert cost.prompt_tokens(1, 0.0) == pytest.approx(batch_s(1) / 0.0002, rel=0.1)


def test_a_prompt_token_may_cost_nothing() -> None:
    cost = after(1, 120)
    cost.ran_prompt(8, 50, 0.0, 0.0)
    assert cost.prompt_tokens(1, 0.0) == MOST_ROWS


def test_prompts_or_rows_that_were_never_seen_tell_nothing() -> None:
    assert after(1, 120).prompt_tokens(1, 0.0) == UNKNOWN_ROWS
    cost = BatchCost()
    cost.ran_prompt(0, 50, 1.0, 0.0)
    assert cost.prompt_tokens(1, 0.0) == UNKNOWN_ROWS
    for _ in range(MIN_SEEN):
        cost.ran(1, 0.2, 0.0)
    assert cost.prompt_tokens(3, 0.0) == pytest.approx(10.0)


def test_the_first_batches_of_a_size_tell_nothing() -> None:
    cost = after(1, 120)
    cost.ran(2, 10 * batch_s(2), 0.0)
    cost.ran(300, 10 * batch_s(300), 0.0)
    assert cost.fixed_rows(0.0) == pytest.approx(9.0)
