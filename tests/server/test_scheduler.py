"""The next batch: short works first, prompts a little at a time, peers in turn, nobody at others' cost."""

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from server.scheduler import Limits, Served, Share, Waiting, plan_turn
from swarm.wire.blocks import PeerId

A, B, C = PeerId("A"), PeerId("B"), PeerId("C")
LIMITS = Limits(short_tokens=16, batch_tokens=40, prompt_tokens=256)
NOW_S = 1000.0


@dataclass
class Fixed:
    """Costs that do not change."""

    rows: float = 1000.0
    prompt: float = 1000.0

    def fixed_rows(self) -> float:
        return self.rows

    def prompt_tokens(self, rows: float, spare: float) -> float:
        return spare * self.prompt * rows


def wait(number: int, peer: PeerId, tokens: int, session: Hashable = None, share: float = 1.0) -> Waiting:
    """A work that passes `share` of all blocks."""
    name = number if session is None else session
    return Waiting(number, peer, tokens, share * tokens, tokens > LIMITS.short_tokens, name)


def served(**ago_s: float) -> Served:
    """Short works and prompts of each peer ran so many seconds ago; whoever waited longest comes first."""
    then = Served()
    for peer, seconds in sorted(ago_s.items(), key=lambda one: -one[1]):
        for is_prompt in (False, True):
            then.note(Share(0, PeerId(peer), 1, is_prompt), f"of {peer}", NOW_S - seconds)
    return then


def plan(
    *waiting: Waiting, last: Served | None = None, limits: Limits = LIMITS, costs: Fixed | None = None
) -> list[tuple[int, int]]:
    """Return (number, tokens) of each share."""
    shares = plan_turn(waiting, last or Served(), limits, costs or Fixed(), NOW_S)
    return [(share.number, share.tokens) for share in shares]


def test_nothing_waits_nothing_runs() -> None:
    assert plan() == []


def test_decodes_go_first_and_a_prompt_gets_a_chunk_beside_them() -> None:
    assert plan(wait(0, A, 1000), wait(1, A, 1), wait(2, B, 1)) == [(1, 1), (2, 1), (0, 256)]


def test_a_prompts_end_leaves_room_for_the_next_prompt() -> None:
    assert plan(wait(0, A, 100), wait(1, B, 300)) == [(0, 100), (1, 156)]


def test_the_peer_whose_prompt_ran_longest_ago_goes_first() -> None:
    works = (wait(0, A, 500), wait(1, B, 500), wait(2, C, 500))
    assert plan(*works, last=served(A=9, B=7, C=8)) == [(0, 256)]
    assert plan(*works, last=served(A=7, B=9, C=8)) == [(1, 256)]


def test_a_newcomer_goes_where_it_came() -> None:
    works = [
        Waiting(number, peer, 16, 16.0, False, number, NOW_S - 1) for number, peer in enumerate((A, B, C))
    ]
    assert plan(*works, last=served(A=0.5, B=2)) == [(1, 16), (2, 16)]


def test_nobody_gets_a_second_place_before_everybody_has_had_one() -> None:
    works = [wait(number, A, 16) for number in range(4)] + [wait(9, B, 16)]
    assert plan(*works, last=served(A=6, B=5)) == [(0, 16), (9, 16)]


def test_a_short_work_is_never_cut() -> None:
    works = [wait(number, A, 16) for number in range(3)]
    assert plan(*works) == [(0, 16), (1, 16)]


class TestCrowds:
    """One peer has many sessions, others few; a batch costs as much as eight rows however few it has."""

    limits, costs = Limits(), Fixed(rows=8)

    def crowd(self, peer: PeerId, size: int, first: int = 0, share: float = 1.0) -> list[Waiting]:
        return [wait(number, peer, 1, share=share) for number in range(first, first + size)]

    def sizes(self, *works: Waiting, last: Served | None = None) -> Counter[PeerId]:
        """How many places each peer gets."""
        whose = {work.number: work.peer for work in works}
        return Counter(whose[n] for n, _ in plan(*works, last=last, limits=self.limits, costs=self.costs))

    def test_beside_one_session_a_crowd_makes_a_batch_at_most_twice_as_long(self) -> None:
        sizes = self.sizes(*self.crowd(A, 100), wait(100, B, 1))
        assert sizes.total() + 8 == 2 * (2 + 8)
        assert sizes[B] == 1

    def test_where_rows_cost_nothing_nobody_is_held_back(self) -> None:
        self.costs = Fixed(rows=1e4)
        assert self.sizes(*self.crowd(A, 100), wait(100, B, 1)).total() == 101

    def test_where_rows_are_all_that_a_batch_costs_few_have_a_second_place(self) -> None:
        self.costs = Fixed(rows=0)
        assert self.sizes(*self.crowd(A, 100), wait(100, B, 1), wait(101, C, 1)) == {A: 4, B: 1, C: 1}

    def test_two_crowds_have_as_much_as_the_smaller_one_wants(self) -> None:
        self.costs = Fixed(rows=0)
        assert self.sizes(*self.crowd(A, 50), *self.crowd(B, 40, first=50)).total() == 90

    def test_a_crowd_is_bounded_while_the_others_are_away_for_a_moment(self) -> None:
        works = self.crowd(A, 100)
        assert self.sizes(*works, last=served(A=0, B=1)).total() == 12
        assert self.sizes(*works, last=served(A=0, B=1.1)).total() == 100

    def test_those_who_are_away_lend_a_crowd_no_places(self) -> None:
        away = {f"identity {number}": 0.5 for number in range(200)}
        assert self.sizes(*self.crowd(A, 100), wait(100, B, 1), last=served(**away)).total() <= 14

    def test_rows_that_pass_few_blocks_cost_less(self) -> None:
        sizes = self.sizes(*self.crowd(A, 400, share=0.1), wait(400, B, 1))
        assert 0.1 * sizes[A] + sizes[B] + 8 <= 2 * (2 + 8)
        assert sizes[A] > 100

    def test_where_nobody_passes_all_blocks_a_batch_costs_less_to_begin(self) -> None:
        sizes = self.sizes(*self.crowd(A, 400, share=0.5), wait(400, B, 1, share=0.5))
        assert sizes.total() + 8 == 2 * (2 + 8)

    def test_a_peer_that_is_alone_has_the_whole_batch(self) -> None:
        assert self.sizes(*self.crowd(A, 100), last=served(A=0)).total() == 100

    def test_a_crowd_and_a_prompt_together_make_a_batch_at_most_twice_as_long(self) -> None:
        self.costs = Fixed(rows=8, prompt=10)
        works = (*self.crowd(A, 100), wait(100, B, 1), wait(101, C, 1000))
        shares = plan(*works, limits=self.limits, costs=self.costs)
        assert len(shares) - 1 == 2 + (2 + 8) // 2
        assert shares[-1] == (101, 2 * 10 // 2)

    def test_a_prompt_beside_peers_who_want_little_has_all_that_they_leave(self) -> None:
        self.costs = Fixed(rows=8, prompt=10)
        works = (wait(0, A, 1), wait(1, B, 1), wait(2, C, 1000))
        assert plan(*works, limits=self.limits, costs=self.costs)[-1] == (2, 2 * 10)


def test_without_a_bound_only_tokens_count() -> None:
    limits, costs = Limits(slowdown=math.inf), Fixed(rows=0, prompt=0)
    works = (*[wait(number, A, 1) for number in range(100)], wait(100, B, 1), wait(101, C, 1000))
    shares = plan(*works, limits=limits, costs=costs)
    assert (len(shares), shares[-1]) == (102, (101, 256))


class TestPrompts:
    """Beside one row, forty tokens of a prompt take as long as the batch without them."""

    limits, costs = Limits(), Fixed(prompt=40)
    prompt = wait(0, A, 1000, "prompt")

    def plan(self, *works: Waiting, last: Served | None = None) -> list[tuple[int, int]]:
        return plan(*works, last=last, limits=self.limits, costs=self.costs)

    def test_beside_decoding_sessions_a_prompt_makes_a_batch_at_most_twice_as_long(self) -> None:
        assert self.plan(self.prompt, wait(1, A, 1)) == [(1, 1), (0, 40)]
        assert self.plan(self.prompt, wait(1, A, 1), wait(2, A, 2))[-1] == (0, 120)

    def test_a_prompt_always_comes_further_and_never_faster_than_its_limit(self) -> None:
        self.costs = Fixed(prompt=0.0)
        assert self.plan(self.prompt, wait(1, A, 1))[-1] == (0, 4)
        self.costs = Fixed(prompt=1e9)
        assert self.plan(self.prompt, wait(1, A, 1))[-1] == (0, 256)

    def test_prompts_leave_room_for_those_who_decode_while_they_are_away_for_a_moment(self) -> None:
        assert self.plan(self.prompt, last=served(A=0.9)) == [(0, 40)]
        assert self.plan(self.prompt, last=served(A=1.1)) == [(0, 256)]

    def test_a_prompt_has_all_of_a_batch_beside_other_prompts_and_after_its_own_sessions_answer(self) -> None:
        other = wait(1, B, 100)
        assert self.plan(self.prompt, other) == [(0, 256)]
        assert self.plan(other, self.prompt) == [(1, 100), (0, 156)]
        assert self.plan(wait(0, A, 1000, "of A"), last=served(A=0)) == [(0, 256)]

    def test_the_end_of_a_prompt_is_no_decoding(self) -> None:
        end = Waiting(1, B, 3, 3.0, is_prompt=True, session="end")
        assert self.plan(end, self.prompt) == [(1, 3), (0, 253)]


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 2000)), min_size=1, max_size=30))
def test_turn_by_turn_everything_runs_exactly_once_and_no_turn_is_long(
    works: list[tuple[PeerId, int]],
) -> None:
    left = {number: wait(number, peer, tokens) for number, (peer, tokens) in enumerate(works)}
    ran: Counter[int] = Counter()
    last = Served()
    for turn in range(10_000):
        if not left:
            break
        shares = plan_turn(list(left.values()), last, LIMITS, Fixed(0.0, 0.0), float(turn))
        assert shares
        assert sum(share.tokens for share in shares) <= LIMITS.batch_tokens + LIMITS.prompt_tokens
        for share in shares:
            ran[share.number] += share.tokens
            last.note(share, share.number, float(turn))
            work = left.pop(share.number)
            if work.tokens > share.tokens:
                rest = work.tokens - share.tokens
                left[share.number] = Waiting(work.number, work.peer, rest, rest, is_prompt=True)
    assert [ran[number] for number in range(len(works))] == [tokens for _, tokens in works]
