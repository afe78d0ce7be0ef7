"""Whose cache goes when memory is short, and who goes first when several wait for it."""

from server.session_effects import SessionKey
from server.victims import SPARED_BY_LATER_S, SPARED_S, Candidate, choose_victim
from server.waiting_line import WAITING_S, Rank, WaitingLine, rank_of
from swarm.wire.blocks import PeerId, SessionId

FIRST, LATER = Rank(is_greedy=False, lot=bytes(8)), Rank(is_greedy=False, lot=b"\xff" * 8)


def key_of(client: str, number: int) -> SessionKey:
    return SessionKey(PeerId(client), SessionId(bytes([number]) * 16))


def held(client: str, number: int, *, is_greedy: bool = False, **changes: object) -> Candidate:
    rank = Rank(is_greedy, bytes([number]) * 8)
    values: dict[str, object] = {"unused_s": 60.0, "is_detached": False, "is_idle": True}
    return Candidate(key_of(client, number), rank, **(values | changes))  # type: ignore[arg-type]


def test_a_detached_session_goes_before_one_that_was_unused_for_longer() -> None:
    detached = held("a", 1, is_detached=True, unused_s=0.0)
    assert choose_victim([held("a", 2, unused_s=999.0), detached], FIRST) == detached.key


def test_of_attached_sessions_the_one_unused_for_longest_goes() -> None:
    oldest = held("a", 1, unused_s=90.0)
    assert choose_victim([held("a", 2, unused_s=80.0), oldest, held("b", 3)], LATER) == oldest.key


def test_a_session_at_work_is_never_chosen() -> None:
    assert choose_victim([held("a", 1, is_idle=False, unused_s=999.0)], FIRST) is None


def test_a_session_used_a_moment_ago_is_spared() -> None:
    assert choose_victim([held("a", 1, unused_s=SPARED_S / 2), held("b", 2, unused_s=0.0)], FIRST) is None


def test_a_session_is_spared_for_longer_by_those_behind_it_in_rank() -> None:
    pausing = held("a", 9, unused_s=SPARED_S * 2)
    assert choose_victim([pausing], FIRST) == pausing.key
    assert choose_victim([pausing], LATER) is None
    assert choose_victim([held("a", 9, unused_s=SPARED_BY_LATER_S * 2)], LATER) == pausing.key


def test_a_client_above_its_share_is_not_spared_by_one_that_is_not() -> None:
    greedy = [held("a", number, is_greedy=True, unused_s=0.1 * number) for number in range(4)]
    modest = held("b", 9, unused_s=0.0)
    assert choose_victim([*greedy, modest], LATER) == greedy[-1].key
    assert choose_victim([*greedy, modest], Rank(is_greedy=True, lot=bytes(8))) is None


def test_nobody_goes_when_nobody_is_there() -> None:
    assert choose_victim([]) is None


def test_the_first_in_rank_is_served_first_whoever_came_first() -> None:
    line = WaitingLine()
    line.join(key_of("a", 1), LATER, 0.0)
    line.join(key_of("b", 2), FIRST, 1.0)
    assert line.first(1.0) == FIRST
    line.leave(key_of("b", 2))
    assert line.first(1.0) == LATER


def test_who_does_not_ask_again_waits_no_longer() -> None:
    line = WaitingLine()
    line.join(key_of("a", 1), FIRST, 0.0)
    assert line.first(WAITING_S) == FIRST
    assert line.first(WAITING_S + 0.1) is None


def test_a_rank_depends_on_nothing_but_the_name_and_greed() -> None:
    assert rank_of(key_of("a", 1), is_greedy=False) == rank_of(key_of("a", 1), is_greedy=False)
    assert rank_of(key_of("a", 1), is_greedy=False) != rank_of(key_of("b", 1), is_greedy=False)
    ranks = [rank_of(key_of("a", number), is_greedy=False) for number in range(99)]
    assert max(ranks) < rank_of(key_of("a", 1), is_greedy=True)
