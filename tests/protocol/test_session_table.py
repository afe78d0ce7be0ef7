"""The table of a server: names, who may speak for a session, leases, tombstones, limits."""

from typing import Any

import pytest

from server.replay_log import LogBudget
from server.session_effects import Room, SessionKey
from server.session_table import TOMBSTONE_S, KVRooms, Limits, Refused, SessionTable
from server.sessions import HopSession
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.messages import Bind, ForkOf, Hello, NextHop, Step
from tests.protocol.world import ListOperations

ALICE, BOB, HOP = PeerId("alice"), PeerId("bob"), PeerId("hop")
ONE, TWO = SessionId(b"1" * 16), SessionId(b"2" * 16)
FINGERPRINT = "0123456789abcdef"
KEY = SessionKey(ALICE, ONE)


class FakeRooms(KVRooms):
    """Room for everybody; remembers which caches are open, and from which parent."""

    def __init__(self) -> None:
        self.opened: dict[SessionKey, SessionKey | None] = {}
        self.can_share = True

    def open(self, key: SessionKey, span: Span) -> Room:
        self.opened[key] = None
        return lambda position, **_: position

    def fork(self, parent: SessionKey, key: SessionKey, position: int) -> Room | None:
        if not self.can_share:
            return None
        self.opened[key] = parent
        return lambda position, **_: position

    def close(self, key: SessionKey) -> None:
        self.opened.pop(key, None)


class Table(SessionTable):
    """A table with fakes around it, on a server of blocks 2:6."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.fakes = FakeRooms()
        self.log_budget = LogBudget(10_000, ListOperations())
        super().__init__(Span(2, 6), FINGERPRINT, self.fakes, self.log_budget, limits or Limits())

    def open(
        self, client: PeerId = ALICE, session: SessionId = ONE, now_s: float = 0.0, **changes: Any
    ) -> HopSession:
        return self.bind(client, bind_of(session=session, **changes), "connection", now_s)[0]


def bind_of(**changes: Any) -> Bind:
    fields: dict[str, Any] = {
        "session": ONE,
        "epoch": 1,
        "stage": 0,
        "num_stages": 2,
        "start": 2,
        "end": 4,
        "fingerprint": FINGERPRINT,
        "previous": ALICE,
        "next": NextHop("next"),
        "commit": 0,
        "lease_ms": 10_000,
        **changes,
    }
    return Bind(**fields)


def hello_of(**changes: Any) -> Hello:
    return Hello(**{"client": ALICE, "session": ONE, "epoch": 1, "stage": 0, **changes})


def fill(session: HopSession, num_tokens: int = 2, tag: int = 7) -> None:
    step = Step(
        epoch=1, seq=0, attempt=0, position=0, num_tokens=num_tokens, base_tag=0, tag=tag, commit=0, rows=0
    )
    session.on_step(step, [1] * num_tokens)
    session.executed([2] * num_tokens)


# --- rules 1 and 2: names and epochs ----------------------------------------------------------------


def test_a_bind_opens_a_session_once() -> None:
    table = Table()
    assert table.open(epoch=1) is table.open(epoch=2)
    assert len(table) == 1


def test_clients_cannot_reach_each_others_sessions() -> None:
    table = Table()
    assert table.open(ALICE) is not table.open(BOB)
    table.close(BOB, ONE)
    assert table.get(KEY) is not None


def test_a_path_that_comes_back_has_a_session_for_each_visit() -> None:
    table = Table()
    assert table.open(slot=0) is not table.open(slot=1)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_bind_that_does_not_raise_the_epoch_is_fenced(epoch: int) -> None:
    table = Table()
    table.open(epoch=2)
    with pytest.raises(Refused) as refusal:
        table.open(epoch=epoch)
    assert refusal.value.code == "fenced"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fingerprint": "another0"}, "wrong_model"),
        ({"start": 0}, "unsupported"),
        ({"end": 7}, "unsupported"),
        ({"start": 4}, "unsupported"),
        ({"stage": 2}, "bad_message"),
        ({"positions": b"\0" * 3}, "bad_message"),
        ({"positions": b"\0" * 4}, "bad_message"),
    ],
)
def test_a_bind_that_cannot_be_obeyed_is_refused_and_opens_nothing(change: dict[str, Any], code: str) -> None:
    table = Table()
    with pytest.raises(Refused) as refusal:
        table.open(**change)
    assert refusal.value.code == code
    assert not table.fakes.opened


def test_other_blocks_need_another_cache() -> None:
    table = Table()
    first = table.open(epoch=1)
    fill(first)
    assert table.open(epoch=2, end=6).position == 0
    assert len(table) == 1
    assert table.log_budget.used_bytes == 0


def test_a_draining_server_keeps_its_sessions_and_takes_no_new_ones() -> None:
    table = Table()
    fill(table.open(epoch=1))
    table.is_draining = True
    assert table.open(epoch=2) is table.get(KEY)
    with pytest.raises(Refused) as refusal:
        table.open(session=TWO)
    assert refusal.value.code == "draining"


def test_a_draining_server_that_refuses_other_blocks_keeps_what_it_has() -> None:
    table = Table()
    kept = table.open(epoch=1)
    table.is_draining = True
    with pytest.raises(Refused):
        table.open(epoch=2, end=6)
    assert table.get(KEY) is kept


# --- rule 1: chain streams ---------------------------------------------------------------------------


def test_the_bound_predecessor_may_put_steps_in() -> None:
    table = Table()
    session = table.open(previous=HOP)
    assert table.admit(HOP, hello_of(), 0.0) is session


@pytest.mark.parametrize("remote", [ALICE, BOB])
def test_nobody_else_may_put_steps_in(remote: PeerId) -> None:
    table = Table()
    table.open(previous=HOP)
    with pytest.raises(Refused) as refusal:
        table.admit(remote, hello_of(), 0.0)
    assert refusal.value.code == "unauthorised"


def test_only_the_client_may_take_results_out() -> None:
    table = Table()
    session = table.open(previous=HOP)
    assert table.admit(ALICE, hello_of(direction="output"), 0.0) is session
    with pytest.raises(Refused):
        table.admit(HOP, hello_of(direction="output"), 0.0)


def test_a_stream_for_another_stage_is_refused() -> None:
    table = Table()
    table.open(previous=HOP)
    with pytest.raises(Refused):
        table.admit(HOP, hello_of(stage=1), 0.0)


def test_a_stream_of_an_older_epoch_is_fenced() -> None:
    table = Table()
    table.open(epoch=2)
    with pytest.raises(Refused) as refusal:
        table.admit(ALICE, hello_of(), 0.0)
    assert refusal.value.code == "fenced"


def test_a_stream_that_overtook_its_bind_is_to_be_held() -> None:
    table = Table()
    assert table.admit(HOP, hello_of(), 0.0) is None
    table.open(epoch=1)
    assert table.admit(HOP, hello_of(epoch=2), 0.0) is None


# --- rule 9: forks --------------------------------------------------------------------------------


def test_a_child_shares_its_parents_cache() -> None:
    table = Table()
    fill(table.open())
    child = table.open(session=TWO, parent=ForkOf(ONE, 2, 7))
    assert table.fakes.opened[SessionKey(ALICE, TWO)] == KEY
    assert child.position == 0  # the bind listed no boundary but the empty one


@pytest.mark.parametrize("parent", [ForkOf(TWO, 2, 7), ForkOf(ONE, 2, 8), ForkOf(ONE, 1, 7)])
def test_a_child_of_something_else_than_the_client_thinks_is_opened_empty(parent: ForkOf) -> None:
    table = Table()
    fill(table.open())
    table.open(session=SessionId(b"c" * 16), parent=parent)
    assert table.fakes.opened[SessionKey(ALICE, SessionId(b"c" * 16))] is None


def test_nobody_forks_another_clients_session() -> None:
    table = Table()
    fill(table.open(ALICE))
    table.open(BOB, TWO, parent=ForkOf(ONE, 2, 7))
    assert table.fakes.opened[SessionKey(BOB, TWO)] is None


def test_a_cache_that_cannot_be_shared_is_opened_empty() -> None:
    table = Table()
    fill(table.open())
    table.fakes.can_share = False
    assert table.open(session=TWO, parent=ForkOf(ONE, 2, 7)).position == 0


# --- rule 10: leases --------------------------------------------------------------------------------


def test_an_attached_session_lives_on_however_long() -> None:
    table = Table()
    table.open()
    assert table.expire(1e9) == []


def test_a_detached_session_ends_with_its_lease() -> None:
    table = Table()
    table.open()
    table.detach("connection", 100.0)
    assert table.expire(109.9) == []
    assert table.expire(110.0) == [KEY]
    assert not table.fakes.opened


def test_whoever_binds_again_attaches_again() -> None:
    table = Table()
    table.open(epoch=1)
    table.detach("connection", 100.0)
    table.open(epoch=2)
    assert table.expire(1e9) == []


def test_one_session_can_be_detached_alone() -> None:
    table = Table()
    table.open(session=ONE)
    table.open(session=TWO)
    table.detach("connection", 0.0, ONE)
    assert [session.key.session for session in table.held_by("connection")] == [TWO]


def test_nothing_waits_to_be_computed_for_a_detached_session() -> None:
    table = Table()
    session = table.open()
    for seq in range(3):
        step = Step(
            epoch=1,
            seq=seq,
            attempt=0,
            position=seq,
            num_tokens=1,
            base_tag=seq,
            tag=seq + 1,
            commit=0,
            rows=0,
        )
        session.on_step(step, [1])
    assert session.num_waiting == 2
    assert table.detach("connection", 0.0, ONE) == [session]
    assert session.num_waiting == 0


def test_another_connection_cannot_detach_a_session() -> None:
    table = Table()
    table.open()
    table.detach("another", 0.0)
    assert table.holder(KEY) == "connection"


def test_no_lease_is_longer_than_the_server_allows() -> None:
    table = Table(Limits(max_lease_s=5.0))
    table.open()
    table.detach("connection", 0.0)
    assert table.expire(5.0) == [KEY]


def test_for_a_while_expired_differs_from_unknown() -> None:
    table = Table()
    table.open()
    table.detach("connection", 0.0)
    table.expire(10.0)
    with pytest.raises(Refused) as refusal:
        table.find(KEY, 10.0 + TOMBSTONE_S - 1)
    assert refusal.value.code == "expired"
    with pytest.raises(Refused) as refusal:
        table.admit(ALICE, hello_of(), 10.0 + TOMBSTONE_S - 1)
    assert refusal.value.code == "expired"
    table.expire(10.0 + TOMBSTONE_S)
    with pytest.raises(Refused) as refusal:
        table.find(KEY, 10.0 + TOMBSTONE_S)
    assert refusal.value.code == "unknown_session"


def test_an_expired_session_can_be_opened_again() -> None:
    table = Table()
    table.open()
    table.detach("connection", 0.0)
    table.expire(10.0)
    table.open(epoch=2)
    assert table.find(KEY, 11.0).position == 0


# --- rules 13 and 14: limits and close --------------------------------------------------------------


def test_one_client_cannot_take_all_sessions() -> None:
    table = Table(Limits(sessions_per_peer=1))
    table.open(ALICE, ONE)
    with pytest.raises(Refused) as refusal:
        table.open(ALICE, TWO)
    assert refusal.value.code == "busy"
    assert refusal.value.retry_after_ms > 0
    table.open(BOB, ONE)


def test_all_clients_together_cannot_take_more_than_the_limit() -> None:
    table = Table(Limits(max_sessions=1))
    table.open(ALICE)
    with pytest.raises(Refused, match="too many"):
        table.open(BOB)


def test_a_closed_session_makes_room_for_another() -> None:
    table = Table(Limits(sessions_per_peer=1))
    table.open(session=ONE)
    table.close(ALICE, ONE)
    table.open(session=TWO)


def test_close_gives_back_every_visit_and_is_idempotent() -> None:
    table = Table()
    for slot in (0, 1):
        fill(table.open(slot=slot))
    assert table.log_budget.used_bytes > 0
    table.close(ALICE, ONE)
    table.close(ALICE, ONE)
    assert (len(table), table.fakes.opened, table.log_budget.used_bytes) == (0, {}, 0)
