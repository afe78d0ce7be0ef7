"""The next batch: short works first, prompts a little at a time, peers in turn."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.scheduler import Limits, Waiting, plan_turn
from swarm.wire.blocks import PeerId

A, B, C = PeerId("A"), PeerId("B"), PeerId("C")
LIMITS = Limits(short_tokens=16, batch_tokens=40, prompt_tokens=256)


def plan(*waiting: Waiting, last: dict[PeerId, int] | None = None) -> list[tuple[int, int]]:
    """Return (number, tokens) of each share."""
    shares = plan_turn(waiting, last or {}, last or {}, LIMITS)
    return [(share.number, share.tokens) for share in shares]


def test_nothing_waits_nothing_runs() -> None:
    assert plan() == []


def test_decodes_go_first_and_a_prompt_gets_a_chunk_beside_them() -> None:
    assert plan(Waiting(0, A, 1000), Waiting(1, A, 1), Waiting(2, B, 1)) == [(1, 1), (2, 1), (0, 256)]


def test_a_prompts_end_leaves_room_for_the_next_prompt() -> None:
    assert plan(Waiting(0, A, 100), Waiting(1, B, 300)) == [(0, 100), (1, 156)]


def test_the_peer_whose_prompt_ran_longest_ago_goes_first() -> None:
    works = (Waiting(0, A, 500), Waiting(1, B, 500), Waiting(2, C, 500))
    assert plan(*works, last={A: 7, B: 9, C: 8}) == [(0, 256)]
    assert plan(*works, last={A: 7, C: 8}) == [(1, 256)]


def test_nobody_gets_a_second_place_before_everybody_has_had_one() -> None:
    works = [Waiting(number, A, 16) for number in range(4)] + [Waiting(9, B, 16)]
    assert plan(*works, last={B: 5}) == [(0, 16), (9, 16)]


def test_a_short_work_is_never_cut() -> None:
    works = [Waiting(number, A, 16) for number in range(3)]
    assert plan(*works) == [(0, 16), (1, 16)]


MANY = [Waiting(number, A, 1) for number in range(100)]
SHARING = Limits(shared_tokens=10)


def test_of_a_peer_with_many_sessions_only_so_much_runs_beside_others() -> None:
    shares = plan_turn([*MANY, Waiting(100, B, 1)], {}, {}, SHARING)
    assert sorted(share.number for share in shares) == [*range(10), 100]


def test_what_a_peer_may_have_is_bounded_while_the_others_are_away_for_a_moment() -> None:
    assert len(plan_turn(MANY, {A: 20, B: 18}, {}, SHARING)) == 10
    assert len(plan_turn(MANY, {A: 20, B: 9}, {}, SHARING)) == 100


def test_a_peer_that_is_alone_has_the_whole_batch() -> None:
    assert len(plan_turn(MANY, {A: 20}, {}, SHARING)) == 100


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 2000)), min_size=1, max_size=30))
def test_turn_by_turn_everything_runs_exactly_once_and_no_turn_is_long(
    works: list[tuple[PeerId, int]],
) -> None:
    left = {number: Waiting(number, peer, tokens) for number, (peer, tokens) in enumerate(works)}
    ran: Counter[int] = Counter()
    last: dict[PeerId, int] = {}
    for turn in range(10_000):
        if not left:
            break
        shares = plan_turn(list(left.values()), last, last, LIMITS)
        assert shares
        assert sum(share.tokens for share in shares) <= LIMITS.batch_tokens + LIMITS.prompt_tokens
        for share in shares:
            ran[share.number] += share.tokens
            last[share.peer] = turn
            work = left.pop(share.number)
            if work.tokens > share.tokens:
                left[share.number] = Waiting(work.number, work.peer, work.tokens - share.tokens)
    assert [ran[number] for number in range(len(works))] == [tokens for _, tokens in works]
