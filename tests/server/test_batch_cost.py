"""What a batch costs beside its rows: a straight line tells it, and nothing spoils the line for long."""

import pytest

from server.batch_cost import MAX_AGE, MAX_AGE_S, MIN_SEEN, UNKNOWN_ROWS, BatchCost

TOKEN_S = 0.0002


def batch_s(rows: int) -> float:
    """4.5 ms a batch and half a millisecond a row: so the tiny model on a CPU."""
    return 0.0045 + 0.0005 * rows


class Machine:
    """What it has run, as the server sees it, one each `every_s`; with prompts they begin `later_s` later."""

    def __init__(self, *batches: int, later_s: float = 0.0, every_s: float = 0.1) -> None:
        self.cost, self._later_s, self._every_s, self.now_s = BatchCost(), later_s, every_s, 0.0
        self.run(*batches)

    def ran(self, rows: int, prompt_tokens: int, seconds: float) -> None:
        self.now_s += self._every_s
        self.cost.ran(rows, prompt_tokens, seconds, self.now_s)

    def knows(self, rows: int) -> bool:
        return not self.cost.wants_alone(rows, self.now_s)

    def run(self, *batches: int, slower: float = 1.0, times: int = MIN_SEEN) -> None:
        """Batches of so many rows each."""
        for rows in batches * times:
            self.ran(rows, 0, slower * batch_s(rows))

    def run_prompts(self, *prompts: int, rows: int = 1, slower: float = 1.0, times: int = MIN_SEEN) -> None:
        """Batches with so many tokens of prompts each."""
        for tokens in prompts * times:
            seconds = self._later_s + batch_s(rows) + slower * tokens * TOKEN_S
            self.ran(rows, tokens, seconds)


@pytest.mark.parametrize("batches", [(), (1,), (5, 6, 7), (7, 8)])
def test_batches_of_one_size_tell_nothing(batches: tuple[int, ...]) -> None:
    assert Machine(*batches).cost.fixed_rows() == UNKNOWN_ROWS


@pytest.mark.parametrize("batches", [(1, 120), (120, 1), (1, 1, 2, 13, 13, 120, 44), (2, 4), (13, 300)])
def test_batches_of_two_sizes_tell_what_comes_once_a_batch(batches: tuple[int, ...]) -> None:
    assert Machine(*batches).cost.fixed_rows() == pytest.approx(9.0)


def test_rows_that_cost_nothing_are_believed_up_to_some_times_what_was_seen() -> None:
    cost = BatchCost()
    for most in (4, 64, 1000):
        for rows in (1, most) * MIN_SEEN:
            cost.ran(rows, 0, 0.003, 0.0)
        assert cost.fixed_rows() == max(UNKNOWN_ROWS, 4.0 * most)


def test_rows_that_cost_as_much_as_a_batch_leave_nothing_over() -> None:
    cost = BatchCost()
    for rows in (1, 10) * MIN_SEEN:
        cost.ran(rows, 0, 0.001 * rows, 0.0)
    assert cost.fixed_rows() == pytest.approx(0.0)


def test_a_batch_that_something_else_made_long_counts_little() -> None:
    machine = Machine(1, 120)
    machine.run(1, 120, slower=10, times=1)
    assert machine.cost.fixed_rows() == pytest.approx(9.0, rel=0.2)


def test_first_batches_that_something_else_made_long_are_soon_forgotten() -> None:
    machine = Machine()
    machine.run(1, slower=20)
    machine.run(120, 1, times=10)
    assert machine.cost.fixed_rows() == pytest.approx(9.0, rel=0.1)


def test_the_first_batches_of_a_size_tell_nothing() -> None:
    machine = Machine(1, 120)
    machine.run(2, 300, slower=10, times=MIN_SEEN - 1)
    assert machine.cost.fixed_rows() == pytest.approx(9.0)


def test_one_row_takes_no_longer_than_many() -> None:
    machine = Machine(13, 120)
    machine.run(1, slower=10)
    assert machine.cost.fixed_rows() < 30


def test_a_size_that_does_not_come_again_beside_others_is_forgotten() -> None:
    machine = Machine(1, 120)
    machine.run(1, times=MAX_AGE - MIN_SEEN)
    assert machine.cost.fixed_rows() != UNKNOWN_ROWS
    machine.run(1, times=2 * MIN_SEEN)
    assert machine.cost.fixed_rows() == UNKNOWN_ROWS


def test_what_was_forgotten_is_measured_anew_from_the_start() -> None:
    machine = Machine(1)
    machine.run(120, slower=20)
    machine.run(1, times=2 * MAX_AGE)
    machine.run(1, 120)
    assert machine.cost.fixed_rows() == pytest.approx(9.0)


def test_a_size_counts_until_it_has_been_measured_anew() -> None:
    machine = Machine(1, 120)
    machine.run_prompts(64, times=2 * MAX_AGE)
    assert not machine.knows(1)
    machine.run(1, 120, times=MIN_SEEN - 1)
    assert not machine.knows(1)
    assert machine.cost.fixed_rows() == pytest.approx(9.0)
    machine.run(1, 120, times=1)
    assert machine.knows(1)
    assert machine.knows(120)


def test_however_quickly_batches_come_a_size_counts_for_some_seconds() -> None:
    machine = Machine(1, 120, every_s=0.001)
    machine.run(1, times=int(0.9 * MAX_AGE_S / 0.001))
    assert machine.cost.fixed_rows() == pytest.approx(9.0)
    machine.run(1, times=int(0.2 * MAX_AGE_S / 0.001))
    assert machine.cost.fixed_rows() == UNKNOWN_ROWS


def test_a_size_is_wanted_alone_a_few_times_and_again_when_it_is_old() -> None:
    """Others come between, some of its batches fail, and what it took is forgotten meanwhile."""
    machine = Machine()
    for _ in range(3):
        wanted = [machine.cost.wants_alone(20, machine.now_s) for _ in range(MIN_SEEN + 3)]
        assert wanted == [True] * MIN_SEEN + [False] * 3
        machine.run(20, 20, times=1)
        machine.run(1, times=MAX_AGE + 1)


def test_what_rows_cost_is_still_known_after_a_long_time_in_which_every_batch_had_a_prompt() -> None:
    machine = Machine(1, 120)
    machine.run_prompts(64, 256, times=10 * MAX_AGE)
    assert machine.cost.fixed_rows() == pytest.approx(9.0)
    assert machine.cost.prompt_tokens(1, 1.0) == pytest.approx(batch_s(1) / TOKEN_S)


def test_work_that_has_changed_is_followed() -> None:
    machine = Machine(1, 120)
    for _ in range(300):
        machine.ran(1, 0, 3 * batch_s(1))
        machine.cost.ran(120, 0, 3 * batch_s(1), 0.0)
    assert machine.cost.fixed_rows() > 100


@pytest.mark.parametrize("prompts", [(50,), (16, 256), (30, 40, 200)])
@pytest.mark.parametrize(("rows", "spare"), [(1, 1.0), (20, 1.0), (20, 0.5)])
def test_a_prompt_token_costs_what_it_adds_to_a_batch(
    prompts: tuple[int, ...], rows: int, spare: float
) -> None:
    machine = Machine(1, 120)
    machine.run_prompts(*prompts, rows=10)
    assert machine.cost.prompt_tokens(rows, spare) == pytest.approx(spare * batch_s(rows) / TOKEN_S)


@pytest.mark.parametrize(("later_s", "tokens_s"), [(0.001, batch_s(1) - 0.001), (0.02, 0.01)])
def test_what_batches_with_prompts_need_to_begin_counts_and_leaves_half_as_much_for_tokens(
    later_s: float, tokens_s: float
) -> None:
    machine = Machine(1, 120, later_s=later_s)
    machine.run_prompts(16, 256)
    assert machine.cost.prompt_tokens(1, 1.0) == pytest.approx(tokens_s / TOKEN_S)


def test_a_first_prompt_for_which_kernels_were_made_keeps_the_next_ones_no_smaller() -> None:
    machine = Machine(1, 120)
    machine.run_prompts(16)
    machine.run_prompts(256, slower=20, times=1)
    machine.run_prompts(256, times=MIN_SEEN - 1)
    assert machine.cost.prompt_tokens(1, 1.0) == pytest.approx(batch_s(1) / TOKEN_S)


def test_the_newest_prompts_tell_what_a_token_costs() -> None:
    machine = Machine(1, 120)
    machine.run_prompts(16, 256, slower=20)
    for slower in (1.0, 3.0):
        for _ in range(10):
            machine.run_prompts(16, 256, slower=slower)
        assert machine.cost.prompt_tokens(1, 1.0) == pytest.approx(batch_s(1) / slower / TOKEN_S, rel=0.2)


def test_a_prompt_whose_tokens_cost_nothing_is_believed_up_to_some_times_what_was_seen() -> None:
    cost = Machine(1, 120).cost
    for tokens in (16, 256) * MIN_SEEN:
        cost.ran(8, tokens, 0.001, 0.0)
    assert cost.prompt_tokens(1, 1.0) == 4.0 * 256


def test_prompts_or_rows_that_were_never_seen_tell_nothing() -> None:
    machine = Machine(1, 120)
    assert machine.cost.prompt_tokens(1, 1.0) == UNKNOWN_ROWS
    machine = Machine()
    machine.run_prompts(16, 256)
    assert machine.cost.prompt_tokens(1, 1.0) == UNKNOWN_ROWS
