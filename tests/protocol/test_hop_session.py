"""The hop's machine, rule by rule: frames and computations in, effects out."""

import struct
from typing import Any

import pytest

from server.replay_log import LogBudget
from server.session_effects import Effect, Execute, Link, SendNext, SessionKey, Tell
from server.sessions import MAX_WAITING_STEPS, HopSession, new_session
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.messages import (
    Bind,
    BindAck,
    Credit,
    NextHop,
    Ready,
    SessionError,
    StartReplay,
    StateStep,
    Step,
    StepResult,
)
from tests.protocol.world import ListOperations

KEY = SessionKey(PeerId("client"), SessionId(bytes(16)))
NEXT = NextHop("next")


def name(*tokens: int) -> int:
    """Stands for a tag: equal contents have equal names."""
    return hash(tokens) & (2**62 - 1) if tokens else 0


class Hop:
    """A session on one hop, whose computations double every token."""

    def __init__(self, room: int = 1000, credit_ahead: int = 8) -> None:
        self.room = room
        self.budget = LogBudget(10_000, ListOperations(), chunk_tokens=4)
        room_of = lambda position, **_: self.room  # noqa: E731 - it changes while a test runs
        self.session = new_session(KEY, Span(0, 2), self.budget, room_of, credit_ahead)
        self.tokens: list[int] = []
        self.seq = 0

    def bind(self, epoch: int = 1, commit: int = 0, at: tuple[int, ...] = (0,), **changes: Any) -> BindAck:
        """Bind with boundaries `at` of the present tokens; the successor is reached at once."""
        tags = [name(*self.tokens[:position]) for position in at]
        fields: dict[str, Any] = {"stage": 0, "num_stages": 2, "next": NEXT, **changes}
        bind = Bind(
            session=KEY.session,
            epoch=epoch,
            start=0,
            end=2,
            fingerprint="0123456789abcdef",
            previous="client",
            commit=commit,
            positions=struct.pack(f"<{len(at)}I", *at),
            tags=struct.pack(f"<{len(at)}Q", *tags),
            **fields,
        )
        self.seq = 0
        assert self.session.bind(bind) == [Link(epoch, fields["next"])]
        (tell,) = self.session.linked(epoch, is_linked=True)
        assert isinstance(tell, Tell)
        assert isinstance(tell.message, BindAck)
        return tell.message

    def step(self, position: int, *tokens: int, **changes: Any) -> list[Effect]:
        """The next step of the client: it puts `tokens` at `position`."""
        before = self.tokens[:position]
        self.tokens = [*before, *tokens]
        fields: dict[str, Any] = {"epoch": self.session.epoch, "seq": self.seq, "attempt": 0, **changes}
        is_blocked = fields.pop("is_blocked", False)
        step = Step(
            position=position,
            num_tokens=len(tokens),
            commit=0,
            **{"base_tag": name(*before), "tag": name(*self.tokens), "rows": 1, **fields},
        )
        self.seq = step.seq + 1
        return self.session.on_step(step, list(tokens), is_blocked=is_blocked)

    def state(self, position: int, *tokens: int, stop: int = 1, **changes: Any) -> list[Effect]:
        before = self.tokens[:position]
        fields: dict[str, Any] = {"epoch": self.session.epoch, "base_tag": name(*before), **changes}
        self.tokens = [*before, *tokens]
        message = StateStep(
            position=position, num_tokens=len(tokens), tag=name(*self.tokens), stop_stage=stop, **fields
        )
        return self.session.on_state_step(message, list(tokens))

    def run(self, effects: list[Effect]) -> list[Effect]:
        """Finish every computation that follows; returns the other effects."""
        others: list[Effect] = []
        while effects:
            effect, *effects = effects
            if isinstance(effect, Execute):
                effects += self.session.executed([2 * value for value in effect.payload])
            else:
                others.append(effect)
        return others

    def order(self, start: int, end: int, **changes: Any) -> list[Effect]:
        fields: dict[str, Any] = {"epoch": self.session.epoch, **changes}
        replay = StartReplay(
            session=KEY.session,
            start=start,
            start_tag=name(*self.tokens[:start]),
            end=end,
            end_tag=name(*self.tokens[:end]),
            stop_stage=1,
            **fields,
        )
        return self.session.replay(replay)


def bound(**options: Any) -> Hop:
    hop = Hop(**options)
    hop.bind()
    return hop


def refusal(effects: list[Effect]) -> SessionError:
    (tell,) = effects
    assert isinstance(tell, Tell)
    assert isinstance(tell.message, SessionError)
    return tell.message


def sent(effects: list[Effect]) -> list[tuple[int, Any]]:
    sends = [effect for effect in effects if isinstance(effect, SendNext)]
    payloads = [send.payload() if send.is_logged else send.payload for send in sends]
    return [(send.message.position, payload) for send, payload in zip(sends, payloads, strict=True)]  # type: ignore[attr-defined]


# --- rule 7: binding ------------------------------------------------------------------------------


def test_a_new_session_holds_nothing_and_grants_room() -> None:
    ack = Hop(room=100).bind()
    assert (ack.position, ack.tag, ack.log_from, ack.credit, ack.linked) == (0, 0, 0, 100, True)


def test_a_bind_is_acknowledged_only_when_the_successor_was_tried() -> None:
    hop = bound()
    (tell,) = hop.session.linked(1, is_linked=False)
    assert isinstance(tell, Tell)
    assert not tell.message.linked  # type: ignore[attr-defined]


def test_a_link_of_an_older_epoch_acknowledges_nothing() -> None:
    hop = bound()
    hop.bind(epoch=2)
    assert hop.session.linked(1, is_linked=True) == []


def test_a_bind_keeps_the_longest_common_history() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    hop.run(hop.step(2, 3))
    ack = hop.bind(epoch=2, at=(0, 2))
    assert (ack.position, ack.tag) == (2, name(1, 2))


def test_a_bind_does_not_keep_other_contents_of_the_same_length() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    hop.run(hop.step(2, 3))
    hop.tokens = [1, 2, 4]
    assert hop.bind(epoch=2, at=(0, 2, 3)).position == 2


def test_a_bind_forgets_what_was_accepted_but_not_computed() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.step(1, 2)
    assert hop.bind(epoch=2, at=(0, 1, 2)).position == 0
    assert not hop.session.is_idle  # the first one still runs, and will not count


def test_a_malformed_bind_raises_a_value_error() -> None:
    bind = Bind(
        session=KEY.session,
        epoch=1,
        stage=0,
        num_stages=1,
        start=0,
        end=2,
        fingerprint="0123456789abcdef",
        previous="client",
        next=None,
        commit=0,
        positions=b"\0" * 4,
    )
    with pytest.raises(ValueError, match="as many tags"):
        Hop().session.bind(bind)


# --- rule 2: epochs -------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_step_of_another_epoch_is_dropped_and_counted(epoch: int) -> None:
    hop = bound()
    hop.bind(epoch=2)
    assert hop.step(0, 1, epoch=epoch) == []
    assert hop.session.counters.stale_frames == 1


def test_a_replayed_part_of_another_epoch_is_dropped_and_counted() -> None:
    hop = bound()
    assert hop.state(0, 1, epoch=0) == []
    assert hop.order(0, 1, epoch=0) == []
    assert hop.session.counters.stale_frames == 2


def test_a_computation_that_a_new_epoch_overtook_does_not_count() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.bind(epoch=2)
    assert hop.session.executed([2]) == []
    assert hop.session.position == 0


def test_work_of_the_new_epoch_waits_for_a_stale_computation() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.bind(epoch=2)
    assert hop.step(0, 5) == []
    assert hop.session.executed([2]) == [Execute(0, 1, [5])]


# --- rule 3: steps -----------------------------------------------------------------------------


def test_a_step_is_computed_and_its_output_sent_on() -> None:
    hop = bound()
    effects = hop.step(0, 1, 2)
    assert effects == [Execute(0, 2, [1, 2])]
    assert sent(hop.run(effects)) == [(0, [2, 4])]
    assert hop.session.position == 2


def test_a_step_counts_the_direct_links_it_took() -> None:
    hop = bound()
    (send,) = hop.run(hop.step(0, 1, links=3))
    assert isinstance(send, SendNext)
    assert send.message.links == 4  # type: ignore[attr-defined]


def test_a_step_that_came_before_is_never_computed_twice() -> None:
    hop = bound()
    hop.run(hop.step(0, 1))
    assert hop.step(0, 1, seq=0) == []
    assert hop.session.counters.executed_tokens == 1


def test_a_gap_in_the_numbers_is_refused_and_the_cache_stays() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    assert refusal(hop.step(1, 3, seq=2)).code == "gap"
    assert hop.session.position == 2


def test_a_position_above_the_contents_is_refused() -> None:
    error = refusal(bound().step(1, 7))
    assert (error.code, error.position) == ("gap", 0)


def test_a_step_on_contents_of_another_name_is_refused() -> None:
    hop = bound()
    hop.run(hop.step(0, 1))
    assert refusal(hop.step(1, 2, base_tag=name(9))).code == "gap"


def test_steps_run_one_after_the_other() -> None:
    hop = bound()
    hop.step(0, 1)
    assert hop.step(1, 2) == []
    assert hop.session.num_waiting == 1
    effects = hop.session.executed([2])
    assert [type(effect) for effect in effects] == [SendNext, Execute]


def test_steps_in_hand_are_those_that_wait_or_run_and_that_somebody_waits_for() -> None:
    hop = bound()
    assert hop.session.num_in_hand == 0
    hop.step(0, 1)
    hop.step(1, 2)
    assert hop.session.num_in_hand == 2
    hop.session.executed([2])
    assert hop.session.num_in_hand == 1
    hop.bind(epoch=2)
    assert hop.session.num_in_hand == 0, "the one that runs is of an older epoch"


def test_nothing_is_in_hand_of_a_session_that_was_let_go() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.step(1, 2)
    hop.session.let_go()
    assert hop.session.num_in_hand == 0


def test_after_a_refusal_the_rest_of_the_attempt_is_dropped() -> None:
    # The second step would fit inside the old contents, though what it continues was refused.
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    assert refusal(hop.step(1, 9, is_blocked=True)).code == "busy"
    assert hop.step(2, 8) == []
    assert hop.step(1, 9, attempt=1) == [Execute(1, 1, [9])]


# --- rule 4: rollback in band --------------------------------------------------------------------


def test_a_step_below_the_length_cuts_cache_and_log() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3))
    hop.run(hop.step(1, 9))
    assert hop.session.position == 2
    assert [payload for _, _, payload in hop.session.log.read(0, 2)] == [[2], [18]]


def test_a_step_without_tokens_cuts_and_needs_no_computation() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3))
    assert sent(hop.step(2)) == [(2, [])]
    assert hop.session.position == 2


def test_a_rollback_below_a_running_step_waits_for_it() -> None:
    hop = bound()
    hop.step(0, 1, 2)
    assert hop.step(1, 9) == []
    assert Execute(1, 1, [9]) in hop.session.executed([2, 4])


# --- rule 7: replay ------------------------------------------------------------------------------


def test_a_hop_that_lacks_the_commit_is_ready_once_it_was_fed() -> None:
    hop = Hop()
    hop.bind(commit=3)
    assert sent(hop.run(hop.state(0, 1, 2))) == [(0, [2, 4])]
    send, tell = hop.run(hop.state(2, 3))
    assert isinstance(send, SendNext)
    assert isinstance(tell, Tell)
    assert isinstance(tell.message, Ready)
    assert tell.message.position == 3


def test_a_replay_goes_no_further_than_the_last_hop_that_lacks_it() -> None:
    hop = Hop()
    hop.bind(commit=1)
    (tell,) = hop.run(hop.state(0, 1, stop=0))
    assert isinstance(tell, Tell)


def test_a_hop_that_lacked_nothing_does_not_say_ready() -> None:
    hop = bound()
    assert all(isinstance(effect, SendNext) for effect in hop.run(hop.state(0, 1)))


def test_a_replay_that_does_not_continue_the_contents_is_refused() -> None:
    hop = Hop()
    hop.bind(commit=4)
    assert refusal(hop.state(2, 1)).code == "gap"


def test_a_replay_without_room_is_refused_with_busy() -> None:
    hop = Hop(room=0)
    hop.bind(commit=2)
    assert refusal(hop.state(0, 1)).code == "busy"


def test_the_log_is_sent_in_chunks_cut_at_step_boundaries() -> None:
    hop = bound()
    for position in range(6):
        hop.run(hop.step(position, position))
    effects = hop.order(0, 6)
    assert sent(effects) == [(0, [0, 2, 4, 6]), (4, [8, 10])]
    first = effects[0]
    assert isinstance(first, SendNext)
    assert (first.message.base_tag, first.message.tag) == (0, name(0, 1, 2, 3))  # type: ignore[attr-defined]


def test_a_replay_may_begin_inside_a_step() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3))
    assert sent(hop.order(1, 3)) == [(1, [4, 6])]


def test_what_the_log_dropped_cannot_be_replayed() -> None:
    hop = bound()
    hop.run(hop.step(0, 1))
    hop.run(hop.step(1, 2))
    hop.session.log.drop_oldest()
    assert refusal(hop.order(0, 2)).code == "gap"


@pytest.mark.parametrize(("start", "end"), [(1, 1), (1, 0)])
def test_a_replay_of_nothing_is_a_bad_message(start: int, end: int) -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    assert refusal(hop.order(start, end)).code == "bad_message"


def test_computing_again_what_is_held_and_final_is_counted() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3))
    hop.bind(epoch=2, commit=3, at=(0, 3))
    hop.run(hop.state(0, 1, 2))
    assert hop.session.counters.recomputed_below_commit == 2


# --- rule 8 and memory pressure -----------------------------------------------------------------


def test_a_hop_logs_what_it_sent_and_the_last_hop_nothing() -> None:
    first, last = bound(), Hop()
    last.bind(stage=1, next=None)
    for hop in (first, last):
        hop.run(hop.step(0, 1, 2))
    assert (first.session.log.start, first.session.log.end) == (0, 2)
    assert (last.session.log.start, last.session.log.end) == (2, 2)
    assert last.budget.used_bytes == 0


def test_a_dropped_cache_shows_as_a_gap() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    hop.session.drop_cache()
    error = refusal(hop.step(2, 3))
    assert (error.code, error.position) == ("gap", 0)


def test_a_dropped_cache_takes_its_log_and_its_credit_along() -> None:
    hop = bound(room=10)
    hop.run(hop.step(0, 1, 2))
    hop.session.drop_cache()
    hop.room = 0
    assert (hop.budget.used_bytes, hop.session.credit) == (0, 0)
    assert refusal(hop.step(0, 1)).code == "busy"
    assert refusal(hop.order(0, 1)).code == "gap"


# --- rule 9: forks ------------------------------------------------------------------------------


def forked(hop: Hop, position: int) -> HopSession:
    key = SessionKey(KEY.client, SessionId(b"c" * 16))
    return hop.session.fork(key, position, name(*hop.tokens[:position]), lambda position, **_: 1000)


def test_a_child_shares_a_known_position() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    hop.run(hop.step(2, 3))
    assert hop.session.can_fork(2, name(1, 2))
    child = forked(hop, 2)
    assert (child.position, child.log.end) == (2, 2)


def test_what_the_parent_does_later_does_not_reach_the_child() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    child = forked(hop, 2)
    hop.run(hop.step(0, 9))
    hop.session.log.close()
    assert child.position == 2
    assert [payload for _, _, payload in child.log.read(0, 2)] == [[2, 4]]


def test_a_child_cannot_share_contents_of_another_name() -> None:
    hop = bound()
    hop.run(hop.step(0, 1, 2))
    assert not hop.session.can_fork(2, name(1, 9))


def test_a_fork_inside_a_step_that_the_parents_rollback_overtook_shares_nothing() -> None:
    # The order comes on the control stream and says (2, name of 1 2); on the chain a rewrite of all four
    # tokens came first. No tag is known at 2, and the length alone would say yes to the wrong contents.
    hop = bound()
    hop.run(hop.step(0, 1, 2, 3, 4))
    hop.run(hop.step(0, 5, 6, 7, 8))
    assert hop.session.position == 4
    assert not hop.session.can_fork(2, name(1, 2))


# --- rules 12 and 13: credit, flow, failures ---------------------------------------------------


def test_a_step_without_room_is_refused_with_busy_and_a_time() -> None:
    error = refusal(bound(room=1).step(0, 1, 2))
    assert (error.code, error.position) == ("busy", 0)
    assert error.retry_after_ms > 0


def test_more_room_is_granted_before_the_client_must_ask() -> None:
    hop = bound(room=8, credit_ahead=8)
    hop.room = 20
    effects = hop.run(hop.step(0, *range(5)))
    (credit,) = [e.message for e in effects if isinstance(e, Tell)]
    assert isinstance(credit, Credit)
    assert (credit.position, credit.stage) == (20, 0)


def test_a_blocked_successor_is_busy_with_the_position_unchanged() -> None:
    hop = bound()
    hop.run(hop.step(0, 1))
    error = refusal(hop.step(1, 2, is_blocked=True))
    assert (error.code, error.position) == ("busy", 1)


def test_no_more_steps_wait_than_the_limit() -> None:
    hop = bound()
    for position in range(MAX_WAITING_STEPS + 1):
        assert all(isinstance(effect, Execute) for effect in hop.step(position, 1))
    assert refusal(hop.step(MAX_WAITING_STEPS + 1, 1)).code == "busy"


def test_an_overflow_behind_the_computation_leaves_the_hop_ahead() -> None:
    hop = bound()
    (send,) = hop.run(hop.step(0, 1))
    assert isinstance(send, SendNext)
    assert refusal(hop.session.overflowed(send.message)).code == "busy"
    assert hop.session.position == 1
    assert hop.step(0, 1, attempt=1) == [Execute(0, 1, [1])]


def test_an_overflow_of_a_replay_is_told() -> None:
    hop = bound()
    state = StateStep(epoch=1, position=0, num_tokens=1, base_tag=name(), tag=name(1), stop_stage=1)
    assert refusal(hop.session.overflowed(state)).code == "gap"


def test_a_part_of_a_replay_that_the_successor_lacks_waits_for_it() -> None:
    hop = Hop()
    hop.bind(commit=9)
    seen = []
    for stop in (1, 0):
        assert isinstance(hop.state(hop.session.position, 1, stop=stop)[0], Execute)
        seen.append(hop.session.will_pass_on_state)
        hop.session.executed([2])
    assert seen == [True, False]
    assert not hop.session.will_pass_on_state


def test_an_overflow_of_an_older_epoch_is_nobodys_business() -> None:
    hop = bound()
    (send,) = hop.run(hop.step(0, 1))
    hop.bind(epoch=2)
    assert isinstance(send, SendNext)
    assert hop.session.overflowed(send.message) == []


def test_a_failed_computation_leaves_the_contents_below_it() -> None:
    hop = bound()
    hop.run(hop.step(0, 1))
    hop.step(1, 2)
    error = refusal(hop.session.failed("internal", "no"))
    assert (error.code, error.position) == ("internal", 1)
    assert hop.session.is_idle


def test_a_failure_refuses_the_newest_attempt_that_waited_behind_it() -> None:
    # Refused in the name of attempt 0, attempt 1 would be lost: the client has left attempt 0 behind.
    hop = bound()
    hop.step(0, 1)
    hop.step(0, 1, attempt=1)
    assert refusal(hop.session.failed("busy", "no")).attempt == 1


def test_what_waits_for_a_client_that_has_gone_is_not_computed_and_who_returns_sends_it_again() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.step(1, 2)
    hop.session.let_go()
    assert sent(hop.session.executed([2])) == [(0, [2])]
    assert hop.session.is_idle
    assert refusal(hop.step(2, 3)).code == "gap"
    assert hop.bind(epoch=2, commit=0, at=(0, 1)).position == 1
    assert hop.step(1, 2) == [Execute(1, 1, [2])]


def test_a_failure_of_an_older_epoch_lets_the_new_one_run() -> None:
    hop = bound()
    hop.step(0, 1)
    hop.bind(epoch=2)
    hop.step(0, 5)
    assert hop.session.failed("internal", "no") == [Execute(0, 1, [5])]


def test_a_broken_link_is_told_once_per_epoch() -> None:
    hop = bound()
    assert refusal(hop.session.link_lost(1)).code == "internal"
    hop.bind(epoch=2)
    assert hop.session.link_lost(1) == []


# --- rule 15: the last hop -------------------------------------------------------------------------


def test_the_last_hop_answers_with_the_wanted_rows_only() -> None:
    hop = Hop()
    hop.bind(stage=1, next=None)
    (send,) = hop.run(hop.step(0, 1, 2, 3, links=1))
    assert isinstance(send, SendNext)
    assert isinstance(send.message, StepResult)
    assert (send.message.position, send.message.num_tokens, send.message.links) == (0, 3, 2)
    assert send.payload == [6]


def test_a_step_that_wants_no_rows_is_answered_without_any() -> None:
    hop = Hop()
    hop.bind(stage=1, next=None)
    (send,) = hop.run(hop.step(0, 1, 2, rows=0))
    assert isinstance(send, SendNext)
    assert send.payload == []
