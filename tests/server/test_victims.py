"""Whose cache goes when memory is short."""

from server.session_effects import SessionKey
from server.victims import SPARED_S, Candidate, choose_victim
from swarm.wire.blocks import PeerId, SessionId


def held(client: str, number: int, **changes: object) -> Candidate:
    key = SessionKey(PeerId(client), SessionId(bytes([number]) * 16))
    values: dict[str, object] = {"pages": 10, "unused_s": 60.0, "is_detached": False, "is_idle": True}
    return Candidate(key, **(values | changes))  # type: ignore[arg-type]


def test_a_detached_session_goes_before_one_that_was_unused_for_longer() -> None:
    detached = held("a", 1, is_detached=True, unused_s=0.0)
    assert choose_victim([held("a", 2, unused_s=999.0), detached], 100) == detached.key


def test_of_attached_sessions_the_one_unused_for_longest_goes() -> None:
    oldest = held("a", 1, unused_s=90.0)
    assert choose_victim([held("a", 2, unused_s=80.0), oldest, held("b", 3)], 100) == oldest.key


def test_a_session_at_work_is_never_chosen() -> None:
    assert choose_victim([held("a", 1, is_idle=False, unused_s=999.0)], 100) is None


def test_a_session_used_a_moment_ago_is_spared() -> None:
    assert choose_victim([held("a", 1, unused_s=SPARED_S / 2), held("b", 2, unused_s=0.0)], 100) is None


def test_a_client_above_its_share_is_not_spared() -> None:
    greedy = [held("a", number, pages=20, unused_s=0.1 * number) for number in range(4)]
    modest = held("b", 9, pages=10, unused_s=0.0)
    assert choose_victim([*greedy, modest], 100) == greedy[-1].key


def test_nobody_goes_when_nobody_is_there() -> None:
    assert choose_victim([], 100) is None
