"""Which hop feeds which: plans for every pattern of losses."""

import pytest

from swarm.replays import CLIENT, Holding, Replay, plan_replays


def plan(*positions: int, commit: int = 9) -> list[Replay]:
    """Plan for hops that hold so much, with logs that reach back to the beginning."""
    return plan_replays([Holding(position, 0) for position in positions], commit)


def test_nothing_is_replayed_when_every_hop_has_the_commit() -> None:
    assert plan(9, 12, 9) == []


def test_nothing_is_replayed_before_anything_is_final() -> None:
    assert plan(0, 0, commit=0) == []


def test_the_hop_before_the_gap_feeds_it_and_nobody_behind_it_computes() -> None:
    assert plan(9, 0, 9) == [Replay(source=0, start=0, end=9, stop=1, lacking=(1,))]


def test_a_gap_of_two_hops_is_fed_in_one_go() -> None:
    assert plan(9, 0, 0, 9) == [Replay(source=0, start=0, end=9, stop=2, lacking=(1, 2))]


def test_a_lost_first_hop_is_fed_from_token_ids() -> None:
    assert plan(0, 9) == [Replay(CLIENT, 0, 9, 0, (0,))]


def test_two_gaps_are_fed_by_the_hop_before_each() -> None:
    assert plan(9, 0, 9, 0) == [Replay(0, 0, 9, 1, (1,)), Replay(2, 0, 9, 3, (3,))]


def test_a_hop_that_came_back_with_less_lacks_only_the_rest() -> None:
    assert plan(9, 4, 9) == [Replay(0, 4, 9, 1, (1,))]


def test_neighbours_that_lack_different_parts_are_fed_one_after_the_other() -> None:
    # Hop 1 was fed from 4 on; its own log reached back to 0, so it can feed hop 2 from 0.
    assert plan(9, 4, 0) == [Replay(0, 4, 9, 1, (1,)), Replay(1, 0, 9, 2, (2,))]


def test_a_log_that_was_dropped_sends_the_question_one_hop_back() -> None:
    holdings = [Holding(9, 0), Holding(9, 5), Holding(0, 0)]
    assert plan_replays(holdings, 9) == [Replay(0, 0, 9, 2, (2,))]


def test_without_any_log_the_client_replays_and_the_hops_between_compute_again() -> None:
    holdings = [Holding(9, 9), Holding(9, 5), Holding(0, 0)]
    assert plan_replays(holdings, 9) == [Replay(CLIENT, 0, 9, 2, (2,))]


def test_a_log_that_reaches_back_far_enough_is_used_although_it_is_cut() -> None:
    holdings = [Holding(9, 4), Holding(6, 6)]
    assert plan_replays(holdings, 9) == [Replay(0, 6, 9, 1, (1,))]


@pytest.mark.parametrize("commit", [1, 5, 9])
def test_what_lies_above_the_commit_is_not_replayed(commit: int) -> None:
    assert all(replay.end == commit for replay in plan(12, 0, 3, commit=commit))
