"""A batch waits a moment for sessions that come back together, and for nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gathering import AWAY, MAX_LENGTH_S, MAX_WAIT, WINDOW, Gathering

BATCH_S = 0.02


def after(*sessions: str, batch_s: float = BATCH_S) -> Gathering:
    """Sessions have just run together, at the time 0."""
    gathering = Gathering()
    gathering.ran(dict.fromkeys(sessions, 0.0), batch_s, 0.0)
    return gathering


def returning(**away_s: float) -> Gathering:
    """Sessions have just run together, at the time 1; each had been away for so long before."""
    gathering = after(*away_s)
    gathering.ran(away_s, BATCH_S, 1.0)
    return gathering


def test_a_session_that_is_alone_never_waits() -> None:
    assert Gathering().patience_s({"a"}, 0.0, 0.0) == 0.0
    assert after("a").patience_s({"a"}, 0.0, 0.001) == 0.0


def test_the_first_of_a_group_waits_for_the_others_and_not_for_long() -> None:
    group = after("a", "b", "c")
    assert group.patience_s({"a"}, 0.0, 0.001) == pytest.approx(WINDOW * BATCH_S)
    assert group.patience_s({"a", "b"}, 0.45 * BATCH_S, 0.01) == pytest.approx(0.05 * BATCH_S)
    assert group.patience_s({"a", "b"}, MAX_WAIT * BATCH_S, 0.01) == 0.0
    assert group.patience_s({"a", "b", "c"}, 0.0, 0.002) == 0.0


def test_who_has_been_away_for_long_is_not_waited_for() -> None:
    group = after("a", "b")
    assert group.patience_s({"a"}, 0.0, AWAY * BATCH_S * 0.99) > 0.0
    assert group.patience_s({"a"}, 0.0, AWAY * BATCH_S * 1.01) == 0.0


def test_a_prompt_waits_until_those_are_overdue_who_were_back_soon_the_last_time() -> None:
    near = returning(a=0.3 * BATCH_S, b=0.4 * BATCH_S)
    for waiting, patience in (({"p"}, 0.46), ({"p", "a"}, 0.5), ({"p", "a", "b"}, 0.0)):
        assert near.patience_s(waiting, 0.0, 1.0, has_prompt=True) == pytest.approx(patience * BATCH_S)
    assert near.patience_s({"p"}, 0.0, 1.0 + 0.4 * BATCH_S, has_prompt=True) == pytest.approx(0.06 * BATCH_S)
    assert near.patience_s({"p"}, 0.0, 1.0 + 0.57 * BATCH_S, has_prompt=True) == 0.0
    assert near.patience_s({"p"}, 0.45 * BATCH_S, 1.0, has_prompt=True) == pytest.approx(0.05 * BATCH_S)


def test_a_prompt_does_not_wait_for_those_who_come_from_far_or_came_for_the_first_time() -> None:
    for gathering in (returning(a=5 * BATCH_S, b=0.6 * BATCH_S), after("a")):
        assert gathering.patience_s({"p"}, 0.0, 1.0, has_prompt=True) == 0.0


def test_batches_that_take_long_do_not_make_others_wait_long() -> None:
    assert after("a", "b", batch_s=3.0).patience_s({"a"}, 0.0, 0.001) <= WINDOW * MAX_LENGTH_S


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.001, 2.0)), min_size=1, max_size=60),
    st.booleans(),
)
def test_no_batch_ever_waits_for_more_than_half_of_the_longest(
    ran: list[tuple[str, float]], has_prompt: bool
) -> None:
    gathering, now_s, longest_s = Gathering(), 0.0, 0.0
    for session, batch_s in ran:
        came_s, now_s, longest_s = now_s, now_s + batch_s, max(longest_s, batch_s)
        gathering.ran({session: came_s}, batch_s, now_s)
        waited_s = 0.0
        while patience_s := gathering.patience_s({"z"}, waited_s, now_s, has_prompt=has_prompt):
            waited_s += patience_s
            now_s += patience_s
            if waited_s > 10 * longest_s:
                break
        assert waited_s <= MAX_WAIT * min(longest_s, MAX_LENGTH_S) + 1e-9


def test_whoever_came_late_once_is_not_soon_waited_for_by_a_prompt() -> None:
    late = returning(a=5 * BATCH_S)
    now_s, times = 1.0, 0
    while not late.patience_s({"p"}, 0.0, now_s, has_prompt=True):
        now_s, times = now_s + BATCH_S, times + 1
        late.ran({"a": now_s - BATCH_S}, BATCH_S, now_s)
    assert times > 5


def test_whoever_had_gone_is_waited_for_again_as_soon_as_it_decodes() -> None:
    """Else a prompt beside it has every second batch for itself until a long absence has faded."""
    back, now_s = returning(a=30.0), 31.0
    back.ran({"a": now_s}, BATCH_S, now_s + BATCH_S)
    assert not back.patience_s({"p"}, 0.0, now_s + BATCH_S, has_prompt=True)
    now_s += 2 * BATCH_S
    back.ran({"a": now_s - BATCH_S}, BATCH_S, now_s)
    assert back.patience_s({"p"}, 0.0, now_s, has_prompt=True)


def test_only_those_that_ran_a_moment_ago_are_remembered() -> None:
    gathering = Gathering()
    for number in range(10_000):
        gathering.ran({number: 0.0}, BATCH_S, number * BATCH_S)
    assert len(gathering._left_s) == len(gathering._away_s) <= AWAY + 1
