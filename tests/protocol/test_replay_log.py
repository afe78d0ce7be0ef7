"""Rule 8: what was sent is kept within a budget, shared by forks, and cut only where steps end."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.replay_log import LogBudget, ReplayLog, replayed_steps
from swarm.wire.messages import StartReplay
from tests.protocol.world import ListOperations

TOKEN_BYTES = 8


def log_of(*chunks: list[int], max_tokens: int = 1000, chunk_tokens: int = 4) -> tuple[ReplayLog, LogBudget]:
    budget = LogBudget(max_tokens * TOKEN_BYTES, ListOperations(), chunk_tokens)
    log = ReplayLog(budget)
    extend(log, *chunks)
    return log, budget


def extend(log: ReplayLog, *chunks: list[int]) -> None:
    for chunk in chunks:
        log.append(log.end, len(chunk), chunk)


def held(log: ReplayLog) -> list[int]:
    return [value for _, _, payload in log.read(0, 10_000) for value in payload]


def replay(log: ReplayLog, start: int, end: int) -> list[tuple[int, int, int, int, Any]]:
    """(position, tokens, tag before, tag after, payload); the tag of a position is ten times the position."""
    order = StartReplay(
        session=bytes(16), epoch=1, start=start, start_tag=10 * start, end=end, end_tag=10 * end, stop_stage=1
    )
    steps = replayed_steps(order, log, lambda position: 10 * position)
    return [(step.position, step.num_tokens, step.base_tag, step.tag, payload()) for step, payload in steps]


def test_an_empty_log_covers_nothing() -> None:
    log, _ = log_of()
    assert (log.start, log.end) == (0, 0)
    assert not log.covers(0, 1)


def test_a_log_covers_what_was_sent() -> None:
    log, _ = log_of([1, 2], [3])
    assert log.covers(0, 3)
    assert not log.covers(0, 4)


def test_a_rewrite_replaces_what_was_above() -> None:
    log, budget = log_of([1, 2, 3], [4])
    log.append(2, 1, [9])
    assert held(log) == [1, 2, 9]
    assert budget.used_bytes == 3 * TOKEN_BYTES


def test_a_cut_inside_a_chunk_gives_back_its_rest() -> None:
    log, budget = log_of([1, 2, 3])
    log.truncate(1)
    assert (held(log), log.end, budget.used_bytes) == ([1], 1, TOKEN_BYTES)


def test_what_would_leave_a_hole_forgets_everything_before_it() -> None:
    log, budget = log_of([1, 2])
    log.append(5, 1, [6])
    assert (log.start, log.end, budget.used_bytes) == (5, 6, TOKEN_BYTES)


def test_a_step_of_no_tokens_takes_no_room() -> None:
    log, budget = log_of([1], [])
    assert (log.end, budget.used_bytes) == (1, TOKEN_BYTES)


def test_a_skipped_part_is_not_held() -> None:
    log, budget = log_of([1, 2])
    log.skip(5)
    assert (log.start, log.end, budget.used_bytes) == (5, 5, 0)


def test_above_the_budget_the_oldest_chunk_goes_first() -> None:
    log, budget = log_of([1, 2], [3, 4], [5, 6], max_tokens=4)
    assert (log.start, held(log)) == (2, [3, 4, 5, 6])
    assert not log.covers(1, 6)
    assert budget.used_bytes == 4 * TOKEN_BYTES


def test_a_chunk_above_the_whole_budget_is_not_held() -> None:
    log, budget = log_of([1, 2, 3], max_tokens=2)
    assert (log.start, log.end, budget.used_bytes) == (3, 3, 0)


def test_the_session_that_logged_longest_ago_pays_first() -> None:
    old, budget = log_of([1, 2], max_tokens=4)
    new = ReplayLog(budget)
    extend(new, [3, 4], [5])
    assert (held(old), held(new)) == ([], [3, 4, 5])


def test_a_fork_shares_what_was_sent_and_then_goes_its_own_way() -> None:
    parent, _ = log_of([1, 2], [3, 4])
    child = parent.fork(3)
    parent.truncate(0)
    extend(child, [9])
    assert (held(parent), held(child), child.end) == ([], [1, 2, 3, 9], 4)


def test_a_fork_of_a_log_that_was_cut_knows_where_it_stands() -> None:
    parent, _ = log_of([1, 2], [3, 4])
    parent.drop_oldest()
    child = parent.fork(2)
    assert (child.start, child.end) == (2, 2)
    extend(child, [9])
    assert held(child) == [9]


def test_a_closed_log_gives_everything_back() -> None:
    log, budget = log_of([1, 2], [3])
    log.close()
    assert budget.used_bytes == 0


def test_decode_steps_are_replayed_as_one() -> None:
    log, _ = log_of([1], [2], [3])
    assert replay(log, 0, 3) == [(0, 3, 0, 30, [1, 2, 3])]


def test_a_long_replay_is_cut_where_steps_end() -> None:
    log, _ = log_of([1, 2], [3], [4, 5], chunk_tokens=4)
    assert replay(log, 0, 5) == [(0, 3, 0, 30, [1, 2, 3]), (3, 2, 30, 50, [4, 5])]


def test_a_step_longer_than_a_chunk_stays_whole() -> None:
    log, _ = log_of([1, 2, 3, 4, 5, 6], [7], chunk_tokens=4)
    assert [payload for *_, payload in replay(log, 0, 7)] == [[1, 2, 3, 4, 5, 6], [7]]


def test_a_replay_can_begin_and_end_inside_steps() -> None:
    log, _ = log_of([1, 2, 3], [4, 5, 6])
    assert replay(log, 1, 5) == [(1, 4, 10, 50, [2, 3, 4, 5])]


CUTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=20)


@given(CUTS, st.integers(1, 20))
def test_whatever_happens_the_books_balance_and_there_is_no_hole(
    operations: list[tuple[int, int]], max_tokens: int
) -> None:
    log, budget = log_of(max_tokens=max_tokens)
    truth: list[int] = []
    for number, (position, num_tokens) in enumerate(operations):
        position = min(position, len(truth))
        truth = truth[:position] + [number] * num_tokens
        log.append(position, num_tokens, [number] * num_tokens)
        assert log.end == len(truth)
        assert held(log) == truth[log.start :]
        assert budget.used_bytes == (log.end - log.start) * TOKEN_BYTES <= max_tokens * TOKEN_BYTES
    log.close()
    assert budget.used_bytes == 0
