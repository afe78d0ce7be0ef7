"""The next batch: short works first, prompts a little at a time, peers in turn."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from server.scheduler import MAX_REMEMBERED, PRESENT_S, Limits, Served, Share, Waiting, plan_turn
from swarm.wire.blocks import PeerId

A, B, C = PeerId("A"), PeerId("B"), PeerId("C")
LIMITS = Limits(short_tokens=16, batch_tokens=40, prompt_tokens=256)


NOW_S = 1000.0


@dataclass
class Fixed:
    """Costs that do not change."""

    rows: float = 1000.0
    prompt: float = 1000.0

    def fixed_rows(self, now_s: float) -> float:
        return self.rows

    def prompt_tokens(self, rows: int, now_s: float) -> float:
        return self.prompt * rows


def served(**ago_s: float) -> Served:
    """Short works and prompts of each peer ran so many seconds ago; whoever waited longest comes first."""
    longest_first = sorted(ago_s.items(), key=lambda one: -one[1])
    times = {PeerId(peer): NOW_S - seconds for peer, seconds in longest_first}
    return Served(dict(times), dict(times))


def plan(
    *waiting: Waiting,
    last: Served | None = None,
    limits: Limits = LIMITS,
    fixed_rows: float = 1000.0,
    prompt: float = 1000.0,
) -> list[tuple[int, int]]:
    """Return (number, tokens) of each share."""
    shares = plan_turn(waiting, last or Served(), limits, Fixed(fixed_rows, prompt), NOW_S)
    return [(share.number, share.tokens) for share in shares]


def test_nothing_waits_nothing_runs() -> None:
    assert plan() == []


def test_decodes_go_first_and_a_prompt_gets_a_chunk_beside_them() -> None:
    assert plan(Waiting(0, A, 1000), Waiting(1, A, 1), Waiting(2, B, 1)) == [(1, 1), (2, 1), (0, 256)]


def test_a_prompts_end_leaves_room_for_the_next_prompt() -> None:
    assert plan(Waiting(0, A, 100), Waiting(1, B, 300)) == [(0, 100), (1, 156)]


def test_the_peer_whose_prompt_ran_longest_ago_goes_first() -> None:
    works = (Waiting(0, A, 500), Waiting(1, B, 500), Waiting(2, C, 500))
    assert plan(*works, last=served(A=9, B=7, C=8)) == [(0, 256)]
    assert plan(*works, last=served(A=9, C=8)) == [(1, 256)]


def test_nobody_gets_a_second_place_before_everybody_has_had_one() -> None:
    works = [Waiting(number, A, 16) for number in range(4)] + [Waiting(9, B, 16)]
    assert plan(*works, last=served(B=5)) == [(0, 16), (9, 16)]


def test_a_short_work_is_never_cut() -> None:
    works = [Waiting(number, A, 16) for number in range(3)]
    assert plan(*works) == [(0, 16), (1, 16)]


def crowd(peer: PeerId, size: int, first: int = 0) -> list[Waiting]:
    return [Waiting(number, peer, 1) for number in range(first, first + size)]


def numbers_of(peer: PeerId, shares: list[tuple[int, int]], works: list[Waiting]) -> list[int]:
    whose = {work.number: work.peer for work in works}
    return [number for number, _ in shares if whose[number] == peer]


def test_beside_one_session_a_crowd_makes_a_batch_at_most_twice_as_long() -> None:
    works = [*crowd(A, 100), Waiting(100, B, 1)]
    shares = plan(*works, limits=Limits(), fixed_rows=8)
    assert len(shares) + 8 == 2 * (2 + 8)
    assert numbers_of(B, shares, works) == [100]
    assert numbers_of(A, shares, works) == list(range(11))


def test_where_rows_cost_nothing_nobody_is_held_back() -> None:
    assert len(plan(*crowd(A, 100), Waiting(100, B, 1), limits=Limits(), fixed_rows=1e4)) == 101


def test_where_rows_are_all_that_a_batch_costs_all_have_a_first_place_and_few_a_second() -> None:
    works = [*crowd(A, 100), Waiting(100, B, 1), Waiting(101, C, 1)]
    shares = plan(*works, limits=Limits(), fixed_rows=0)
    assert (len(shares), len(numbers_of(A, shares, works))) == (6, 4)


LONG = Waiting(0, A, 1000, "prompt")


def test_beside_decoding_sessions_a_prompt_makes_a_batch_at_most_twice_as_long() -> None:
    assert plan(LONG, Waiting(1, B, 1), limits=Limits(), prompt=40) == [(1, 1), (0, 40)]
    assert plan(LONG, Waiting(1, B, 1), Waiting(2, A, 2), limits=Limits(), prompt=40)[-1] == (0, 120)


def test_a_prompt_always_comes_further_and_never_faster_than_its_limit() -> None:
    assert plan(LONG, Waiting(1, B, 1), limits=Limits(), prompt=0.0)[-1] == (0, 16)
    assert plan(LONG, Waiting(1, B, 1), limits=Limits(), prompt=1e9)[-1] == (0, 256)


def test_prompts_leave_room_for_those_who_decode_while_they_are_away_for_a_moment() -> None:
    decoded = Served()
    decoded.note(Share(7, B, 1, is_prompt=False), "decode", NOW_S - PRESENT_S)
    assert plan(LONG, last=decoded, limits=Limits(), prompt=40) == [(0, 40)]


def test_a_prompt_has_all_of_a_batch_beside_other_prompts_and_after_its_own_sessions_answer() -> None:
    other = Waiting(1, B, 100, "other")
    decoded = Served()
    decoded.note(Share(7, A, 1, is_prompt=False), "prompt", NOW_S)
    assert plan(LONG, other, limits=Limits(), prompt=40) == [(0, 256)]
    assert plan(other, LONG, limits=Limits(), prompt=40) == [(1, 100), (0, 156)]
    decoded.decoded_s["long ago"] = NOW_S - PRESENT_S - 1
    decoded.decoded_s["prompt"] = decoded.decoded_s.pop("prompt")
    assert plan(LONG, last=decoded, limits=Limits(), prompt=40) == [(0, 256)]


def test_two_crowds_have_as_much_as_the_smaller_one_wants() -> None:
    works = [*crowd(A, 50), *crowd(B, 40, first=50)]
    assert len(plan(*works, limits=Limits(), fixed_rows=0)) == 90


def test_a_crowd_is_bounded_while_the_others_are_away_for_a_moment() -> None:
    works = crowd(A, 100)
    assert len(plan(*works, last=served(A=0, B=PRESENT_S), limits=Limits(), fixed_rows=8)) == 12
    assert len(plan(*works, last=served(A=0, B=PRESENT_S + 0.1), limits=Limits(), fixed_rows=8)) == 100


def test_a_peer_that_is_alone_has_the_whole_batch() -> None:
    assert len(plan(*crowd(A, 100), last=served(A=0), limits=Limits(), fixed_rows=0)) == 100


def test_of_too_many_peers_those_are_forgotten_who_ran_longest_ago() -> None:
    remembered = Served()
    for number in range(MAX_REMEMBERED + 10):
        remembered.note(Share(0, PeerId(f"{number}"), 1, is_prompt=False), number, float(number))
    remembered.note(Share(0, PeerId("0"), 1, is_prompt=False), 0, 1e6)
    assert len(remembered.short_s) == len(remembered.decoded_s) == MAX_REMEMBERED
    assert PeerId("0") in remembered.short_s
    assert PeerId("5") not in remembered.short_s


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 2000)), min_size=1, max_size=30))
def test_turn_by_turn_everything_runs_exactly_once_and_no_turn_is_long(
    works: list[tuple[PeerId, int]],
) -> None:
    left = {number: Waiting(number, peer, tokens) for number, (peer, tokens) in enumerate(works)}
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
                left[share.number] = Waiting(work.number, work.peer, work.tokens - share.tokens)
    assert [ran[number] for number in range(len(works))] == [tokens for _, tokens in works]
