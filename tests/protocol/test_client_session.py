"""The client's machine, rule by rule: the user's calls and the hops' messages in, effects out."""

from typing import Any

import pytest

from swarm.errors import LocalProtocolError
from swarm.history import History
from swarm.outbox import Window
from swarm.session import ClientSession, Phase, reattach
from swarm.session_effects import (
    Broken,
    Deliver,
    Effect,
    NeedRoute,
    OpenChain,
    RetryLater,
    SendState,
    SendStep,
    TellHop,
)
from swarm.wire.blocks import Hop, PeerId, Route, SessionId, Span
from swarm.wire.bounds import ErrorCode
from swarm.wire.messages import (
    Bind,
    BindAck,
    Close,
    Credit,
    Ready,
    SessionError,
    SessionProgress,
    StartReplay,
    Step,
    StepResult,
    WantCredit,
)
from swarm.wire.tags import TagChain, unpack_boundaries

CLIENT = PeerId("client")
FINGERPRINT = "0123456789abcdef"
SESSION = SessionId(bytes(16))


def route_of(*peers: str) -> Route:
    return tuple(Hop(PeerId(peer), Span(at, at + 1)) for at, peer in enumerate(peers))


class Client:
    """A session, and the shortest ways to answer it as its hops would."""

    def __init__(self, window: Window | None = None) -> None:
        self.session = ClientSession(SESSION, CLIENT, FINGERPRINT, History(TagChain(b"k" * 16)))
        self.session.outbox.window = window or Window()

    def bind(self, *peers: str) -> list[Effect]:
        return self.session.bind(route_of(*peers), {PeerId(peer): (f"/at/{peer}",) for peer in peers})

    def ack(self, stage: int, position: int = 0, **changes: Any) -> list[Effect]:
        fields: dict[str, Any] = {
            "epoch": self.session.epoch,
            "tag": self.session.history.tag(min(position, self.session.position)),
            "log_from": 0,
            "credit": 1000,
            "linked": True,
            **changes,
        }
        return self.session.on_ack(BindAck(session=SESSION, stage=stage, position=position, **fields))

    def ready(self, stage: int) -> list[Effect]:
        position = self.session.commit
        ready = Ready(session=SESSION, epoch=self.session.epoch, stage=stage, position=position)
        return self.session.on_ready(ready)

    def answer(self, step: Step, **changes: Any) -> list[Effect]:
        fields: dict[str, Any] = {
            "epoch": step.epoch,
            "position": step.position,
            "num_tokens": step.num_tokens,
            "tag": step.tag,
            **changes,
        }
        return self.session.on_result(
            StepResult(seq=step.seq, **fields), [0] * min(step.rows, step.num_tokens)
        )

    def refuse(self, code: ErrorCode, stage: int = 0, **changes: Any) -> list[Effect]:
        fields: dict[str, Any] = {"epoch": self.session.epoch, "position": self.session.commit, **changes}
        return self.session.on_error(SessionError(session=SESSION, code=code, stage=stage, **fields))

    def step(self, *labels: int, rows: int = 1) -> list[Effect]:
        return self.session.step(labels, rows)[1]

    def deliver(self, *labels: int) -> None:
        """A step there and back."""
        (step,) = steps(self.step(*labels))
        self.answer(step)


def bound(*peers: str, **options: Any) -> Client:
    """A client whose empty session is ready on the route."""
    client = Client(**options)
    client.bind(*(peers or ("a", "b", "c")))
    for stage in range(len(client.session.route)):
        client.ack(stage)
    assert client.session.phase is Phase.READY
    return client


def steps(effects: list[Effect]) -> list[Step]:
    return [effect.step for effect in effects if isinstance(effect, SendStep)]


def told(effects: list[Effect]) -> list[tuple[int, Any]]:
    return [(effect.stage, effect.message) for effect in effects if isinstance(effect, TellHop)]


# --- rules 1, 2 and 7: binding ---------------------------------------------------------------------


def test_a_bind_goes_to_every_hop_with_its_neighbours() -> None:
    binds = [message for _, message in told(Client().bind("a", "b", "c"))]
    assert [bind.previous for bind in binds] == [CLIENT, "a", "b"]
    assert [bind.next and bind.next.peer for bind in binds] == ["b", "c", None]
    assert binds[0].next.addresses == ("/at/b",)


def test_the_chain_is_opened_under_the_epoch_of_the_bind() -> None:
    assert Client().bind("a", "b")[-1] == OpenChain(1, frozenset())


def test_a_session_that_begins_anew_has_no_name_left_that_a_hop_could_know() -> None:
    client = bound("a", "b")
    client.deliver(5, 6)
    old = client.session.history
    anew = History(TagChain(b"n" * 16))
    anew.append([5, 6])
    bind = told(client.session.begin_anew(anew, is_long=True))[0][1]
    assert bind.is_long
    assert unpack_boundaries(bind.positions, bind.tags) == {0: 0, 2: anew.tag(2)}
    assert anew.tag(2) != old.tag(2)
    client.ack(0)
    (replay, *_) = client.ack(1)
    assert isinstance(replay, SendState)
    assert client.session.ticket().is_long
    assert client.session.fork(SessionId(b"c" * 16), 2).is_long


def test_a_session_does_not_begin_anew_in_the_middle_of_a_step() -> None:
    client = bound("a", "b")
    client.step(5)
    with pytest.raises(LocalProtocolError, match="between two steps"):
        client.session.begin_anew(History(TagChain(b"n" * 16)), is_long=True)


def test_every_bind_raises_the_epoch() -> None:
    client = bound()
    client.bind("a", "b")
    assert client.session.epoch == 2


def test_a_bind_lists_the_boundaries_of_the_history() -> None:
    client = bound()
    client.deliver(1, 2)
    (_, bind), *_ = told(client.bind("a", "b"))
    assert isinstance(bind, Bind)
    assert sorted(unpack_boundaries(bind.positions, bind.tags)) == [0, 2]
    assert bind.commit == 2


def test_a_custom_path_names_each_visit_of_a_server() -> None:
    binds = [message for _, message in told(Client().bind("a", "b", "a"))]
    assert [bind.slot for bind in binds] == [0, 0, 1]
    assert binds[1].next.slot == 1


def test_steps_wait_until_every_hop_has_acknowledged() -> None:
    client = Client()
    client.bind("a", "b")
    assert client.step(1) == []
    assert client.ack(0) == []
    assert client.session.missing_acks == {"b"}
    assert len(steps(client.ack(1))) == 1


def test_an_acknowledgement_of_an_older_epoch_does_not_count() -> None:
    client = Client()
    client.bind("a")
    client.bind("a")
    client.ack(0, epoch=1)
    assert client.session.phase is Phase.BINDING


def test_a_server_that_claims_another_history_is_left() -> None:
    client = bound("a")
    client.deliver(1, 2)
    client.bind("a")
    (need,) = client.ack(0, position=2, tag=5)
    assert isinstance(need, NeedRoute)
    assert need.lost == {"a"}


def test_a_server_that_claims_more_than_the_history_is_left() -> None:
    client = Client()
    client.bind("a")
    (need,) = client.ack(0, position=7)
    assert isinstance(need, NeedRoute)


def test_a_hop_that_cannot_reach_its_successor_is_relayed_on_that_link_alone() -> None:
    client = Client()
    client.bind("a", "b", "c")
    effects = client.ack(1, linked=False)
    binds = [message for _, message in told(effects)]
    assert effects[-1] == OpenChain(2, frozenset({1}))
    assert [bind.next and bind.next.peer for bind in binds] == ["b", None, None]
    assert [bind.previous for bind in binds] == [CLIENT, "a", CLIENT]


# --- rule 7: replay --------------------------------------------------------------------------------


def after_losing_the_middle() -> Client:
    """Three tokens are final; hop b is lost and n, which holds nothing, takes its place."""
    client = bound("a", "b", "c")
    client.deliver(1, 2)
    client.deliver(3)
    client.session.on_lost(frozenset([PeerId("b")]), "gone")
    client.bind("a", "n", "c")
    client.ack(0, 3)
    client.ack(1, 0)
    return client


def test_the_hop_before_the_gap_is_told_to_replay() -> None:
    client = after_losing_the_middle()
    ((stage, order),) = told(client.ack(2, 3))
    assert stage == 0
    assert isinstance(order, StartReplay)
    assert (order.start, order.end, order.stop_stage) == (0, 3, 1)
    assert order.end_tag == client.session.history.tag(3)


def test_outstanding_steps_are_sent_again_once_all_are_ready() -> None:
    client = after_losing_the_middle()
    client.step(4)
    client.ack(2, 3)
    (step,) = steps(client.ready(1))
    assert (step.position, step.seq, step.attempt, step.commit) == (3, 0, 0, 3)


def test_a_ready_of_an_older_epoch_does_not_count() -> None:
    client = after_losing_the_middle()
    client.ack(2, 3)
    client.session.on_ready(Ready(session=SESSION, epoch=1, stage=1, position=3))
    assert client.session.phase is Phase.REPLAYING


def beat(client: Client, stage: int, **changes: int) -> SessionProgress:
    fields = {"epoch": client.session.epoch, "executed_seq": -1, "credit": 0, **changes}
    return SessionProgress(SESSION, stage=stage, **fields)


def test_a_replay_comes_further_where_a_hop_that_lacks_it_says_a_new_position() -> None:
    client = after_losing_the_middle()
    assert not client.session.has_come_further(beat(client, 1, position=1)), "it is not under way"
    client.ack(2, 3)
    said = [(1, 0), (1, 2), (1, 2), (1, 1), (1, 99), (1, 100), (0, 3), (2, 3)]
    heard = [client.session.has_come_further(beat(client, stage, position=at)) for stage, at in said]
    assert heard == [False, True, False, False, True, False, False, False]
    assert not client.session.has_come_further(beat(client, 1, position=3, epoch=1))


def test_a_step_is_in_hand_where_the_oldest_one_has_not_been_executed() -> None:
    client = bound("a", "b")
    first, second = steps(client.step(1)) + steps(client.step(2))
    assert client.session.has_in_hand(beat(client, 0, num_in_hand=2))
    assert not client.session.has_in_hand(beat(client, 0, num_in_hand=1, executed_seq=first.seq))
    assert not client.session.has_in_hand(beat(client, 1, num_in_hand=0))
    assert not client.session.has_in_hand(beat(client, 1, num_in_hand=1, epoch=0))
    client.answer(first)
    assert client.session.has_in_hand(beat(client, 1, num_in_hand=1, executed_seq=first.seq))
    client.answer(second)
    assert not client.session.has_in_hand(beat(client, 1, num_in_hand=1, executed_seq=first.seq))


def test_a_replay_is_in_hand_on_a_hop_that_lacks_it_alone() -> None:
    client = after_losing_the_middle()
    assert not client.session.has_in_hand(beat(client, 1, num_in_hand=1)), "no route stands"
    client.ack(2, 3)
    heard = [client.session.has_in_hand(beat(client, stage, num_in_hand=1)) for stage in range(3)]
    assert heard == [False, True, False]
    client.ready(1)
    assert not client.session.has_in_hand(beat(client, 1, num_in_hand=1)), "nothing is asked"


def test_a_hop_that_computes_for_one_behind_it_has_a_replay_in_hand_as_well() -> None:
    client = after_losing_the_middle()
    client.ack(0, 3, log_from=3)
    client.ack(2, 3)
    heard = [client.session.has_in_hand(beat(client, stage, num_in_hand=1)) for stage in range(3)]
    assert heard == [True, True, False]


def test_a_ready_counts_once_and_only_from_a_hop_that_lacks_something() -> None:
    client = after_losing_the_middle()
    client.ack(2, 3)
    ready = Ready(session=SESSION, epoch=client.session.epoch, stage=1, position=3)
    assert client.session.awaits(ready)
    assert not client.session.awaits(Ready(session=SESSION, epoch=1, stage=1, position=3))
    assert not client.session.awaits(Ready(session=SESSION, epoch=client.session.epoch, stage=2, position=3))
    client.session.on_ready(ready)
    assert not client.session.awaits(ready)


def test_a_lost_first_hop_is_fed_from_token_ids_in_chunks() -> None:
    client = bound("a", "b")
    client.session.replay_chunk_tokens = 2
    client.deliver(1, 2, 3)
    client.bind("n", "b")
    client.ack(0, 0)
    parts = [effect.step for effect in client.ack(1, 3) if isinstance(effect, SendState)]
    assert [(part.position, part.num_tokens, part.stop_stage) for part in parts] == [(0, 2, 0), (2, 1, 0)]


def test_what_was_replayed_from_token_ids_survives_a_second_failure() -> None:
    client = bound("a", "b")
    client.session.replay_chunk_tokens = 2
    client.deliver(1, 2, 3)
    client.bind("n", "b")
    client.ack(0, 0)
    client.ack(1, 3)
    (_, bind), *_ = told(client.bind("n", "m"))
    assert sorted(unpack_boundaries(bind.positions, bind.tags)) == [0, 2, 3]


def test_a_second_failure_in_the_middle_of_a_replay_begins_again() -> None:
    client = after_losing_the_middle()
    client.ack(2, 3)
    (need,) = client.session.on_lost(frozenset([PeerId("a")]), "gone")
    assert isinstance(need, NeedRoute)
    client.bind("x", "n", "c")
    client.ack(0, 0)
    client.ack(1, 0)
    (part,) = client.ack(2, 3)
    assert isinstance(part, SendState)
    assert (part.step.epoch, part.step.stop_stage) == (3, 1)


def test_a_refused_replay_begins_again_on_the_same_route() -> None:
    client = after_losing_the_middle()
    client.ack(2, 3)
    client.refuse("gap", stage=1)
    assert (client.session.phase, client.session.epoch) == (Phase.BINDING, 3)


def test_a_hop_without_room_for_a_replay_is_left() -> None:
    client = after_losing_the_middle()
    client.ack(2, 3)
    (need,) = client.refuse("busy", stage=1)
    assert isinstance(need, NeedRoute)
    assert need.lost == {"n"}


# --- rule 11: losses -----------------------------------------------------------------------------


def test_the_loss_of_a_peer_outside_the_route_changes_nothing() -> None:
    assert bound().session.on_lost(frozenset([PeerId("z")]), "gone") == []


def test_after_a_loss_late_frames_are_not_trusted() -> None:
    client = bound()
    (step,) = steps(client.step(1))
    client.session.on_lost(frozenset([PeerId("b")]), "silent")
    assert client.answer(step) == []
    assert client.session.commit == 0


def test_without_a_route_acknowledgements_do_not_bring_the_lost_one_back() -> None:
    client = Client()
    client.bind("a", "b")
    client.session.on_lost(frozenset([PeerId("b")]), "silent")
    client.ack(0)
    client.ack(1)
    assert client.session.phase is Phase.ROUTELESS


def test_without_a_route_a_rollback_does_not_bind_the_lost_one_again() -> None:
    client = bound()
    client.deliver(1, 2)
    client.session.on_lost(frozenset([PeerId("b")]), "silent")
    assert client.session.rollback(1) == []
    assert client.session.epoch == 1


def test_without_a_route_refusals_do_not_bind_the_lost_one_again() -> None:
    client = bound()
    client.session.on_lost(frozenset([PeerId("b")]), "silent")
    assert client.refuse("gap", stage=2) == []


# --- rules 3, 5 and 6: steps -----------------------------------------------------------------------


def test_an_answer_is_delivered_and_becomes_final() -> None:
    client = bound()
    number, effects = client.session.step([1, 2], 1)
    (step,) = steps(effects)
    assert client.answer(step, links=3) == [Deliver(number, [0], 3)]
    assert client.session.commit == 2


@pytest.mark.parametrize("change", [{"epoch": 0}, {"tag": 7}, {"position": 1}, {"num_tokens": 2}])
def test_an_answer_that_is_not_ours_is_ignored(change: dict[str, int]) -> None:
    client = bound()
    (step,) = steps(client.step(1))
    assert client.answer(step, **change) == []
    assert client.session.commit == 0


def test_the_next_step_says_what_is_final() -> None:
    client = bound()
    client.deliver(1, 2)
    (step,) = steps(client.step(3))
    assert step.commit == 2


# --- rule 4: rollback ------------------------------------------------------------------------------


def test_a_rollback_sends_nothing_the_next_step_says_it() -> None:
    client = bound()
    client.deliver(1, 2, 3)
    assert client.session.rollback(1) == []
    (step,) = steps(client.step(9))
    assert (step.position, step.base_tag) == (1, client.session.history.tag(1))


def test_a_rollback_lowers_what_is_final() -> None:
    client = bound()
    client.deliver(1, 2, 3)
    client.session.rollback(1)
    assert client.session.commit == 1


def test_a_rollback_forgets_outstanding_steps_above_it() -> None:
    client = bound()
    client.deliver(1)
    (step,) = steps(client.step(2))
    client.session.rollback(1)
    assert len(client.session.outbox) == 0
    assert client.answer(step) == []


def test_a_rollback_while_binding_binds_anew() -> None:
    client = bound()
    client.deliver(1, 2)
    client.bind("a", "b", "c")
    client.session.rollback(1)
    assert client.session.epoch == 3


@pytest.mark.parametrize("position", [-1, 4])
def test_a_rollback_to_a_position_that_is_not_ours_is_refused(position: int) -> None:
    client = bound()
    client.deliver(1, 2, 3)
    with pytest.raises(LocalProtocolError):
        client.session.rollback(position)


def test_a_rollback_into_an_outstanding_step_is_refused() -> None:
    client = bound()
    client.step(1, 2)
    with pytest.raises(LocalProtocolError, match="under way"):
        client.session.rollback(1)


# --- rule 9: forks ---------------------------------------------------------------------------------


def test_a_child_asks_the_hops_to_share_what_the_parent_holds() -> None:
    client = bound()
    client.deliver(1, 2, 3)
    child = client.session.fork(SessionId(b"c" * 16), 2)
    (_, bind), *_ = told(child.bind(client.session.route))
    assert (bind.parent.session, bind.parent.position) == (SESSION, 2)
    assert bind.parent.tag == client.session.history.tag(2)
    assert (child.position, child.commit) == (2, 2)


def test_a_fork_above_what_is_final_is_refused() -> None:
    client = bound()
    client.step(1)
    with pytest.raises(LocalProtocolError, match="final"):
        client.session.fork(SessionId(b"c" * 16), 1)


def test_a_child_that_could_not_be_shared_is_replayed() -> None:
    client = bound("a", "b")
    client.deliver(1, 2)
    child = Client()
    child.session = client.session.fork(SessionId(b"c" * 16), 2)
    child.bind("a", "b")
    child.ack(0, 2)
    ((stage, order),) = told(child.ack(1, 0))
    assert (stage, order.start, order.end) == (0, 0, 2)


# --- rule 10: leases and tickets --------------------------------------------------------------------


def test_a_ticket_and_the_history_bring_a_session_back() -> None:
    client = bound()
    client.deliver(1, 2)
    ticket = client.session.ticket()
    again = reattach(ticket, [1, 2, 3], CLIENT, FINGERPRINT)
    again.bind(route_of("a"))
    assert (again.epoch, again.commit, again.position) == (2, 2, 2)
    assert again.history.tag(2) == client.session.history.tag(2)


def test_a_ticket_of_another_history_is_refused() -> None:
    client = bound()
    client.deliver(1, 2)
    with pytest.raises(LocalProtocolError, match="another history"):
        reattach(client.session.ticket(), [1, 3], CLIENT, FINGERPRINT)


def test_whoever_is_fenced_stops_though_the_epoch_is_that_of_the_one_who_took_over() -> None:
    client = bound()
    client.session.ticket()
    (broken,) = client.refuse("fenced", epoch=client.session.epoch + 1)
    assert isinstance(broken, Broken)


def test_whoever_is_fenced_stops() -> None:
    client = bound()
    client.session.ticket()
    (broken,) = client.refuse("fenced")
    assert isinstance(broken, Broken)
    with pytest.raises(LocalProtocolError, match="closed"):
        client.step(1)


def test_an_expired_session_is_bound_and_filled_again() -> None:
    client = bound("a")
    client.deliver(1, 2)
    client.refuse("expired")
    (part,) = client.ack(0, 0)
    assert isinstance(part, SendState)


# --- rules 12 and 13: credit and flow ----------------------------------------------------------------


def test_credit_is_asked_of_the_hops_that_are_short() -> None:
    client = Client()
    client.bind("a", "b")
    client.ack(0, credit=1)
    client.ack(1, credit=9)
    ((stage, want),) = told(client.step(1, 2))
    assert stage == 0
    assert isinstance(want, WantCredit)
    assert want.position == 2


def test_steps_go_out_once_credit_is_granted() -> None:
    client = Client()
    client.bind("a")
    client.ack(0, credit=0)
    client.step(1, 2)
    effects = client.session.on_credit(Credit(session=SESSION, epoch=1, stage=0, position=5))
    assert len(steps(effects)) == 1


@pytest.mark.parametrize("change", [{"epoch": 0}, {"stage": 3}])
def test_credit_of_another_epoch_or_stage_is_ignored(change: dict[str, int]) -> None:
    client = Client()
    client.bind("a")
    client.ack(0, credit=0)
    client.step(1)
    fields = {"epoch": 1, "stage": 0, **change}
    assert client.session.on_credit(Credit(session=SESSION, position=5, **fields)) == []  # type: ignore[arg-type]


def test_after_busy_everything_outstanding_is_sent_again_when_the_wait_is_over() -> None:
    client = bound()
    client.step(1)
    client.step(2)
    assert client.refuse("busy", stage=1, retry_after_ms=200) == [RetryLater(0, 200, 1)]
    assert [(step.attempt, step.seq, step.position) for step in steps(client.session.retry(0))] == [
        (1, 2, 0),
        (1, 3, 1),
    ]


def test_a_second_refusal_of_an_older_attempt_is_ignored() -> None:
    client = bound()
    client.step(1)
    client.refuse("busy")
    client.session.retry(0)
    assert client.refuse("busy", attempt=0) == []


def test_a_wait_that_a_new_epoch_ended_does_nothing() -> None:
    client = bound()
    client.step(1)
    client.refuse("busy")
    client.bind("a", "b", "c")
    assert client.session.retry(0) == []


def test_a_gap_is_answered_by_sending_again_at_once() -> None:
    client = bound()
    client.step(1)
    assert [step.attempt for step in steps(client.refuse("gap", stage=2))] == [1]


def test_a_hop_that_lost_what_is_final_is_bound_and_filled_again() -> None:
    client = bound()
    client.deliver(1, 2)
    client.step(3)
    client.refuse("gap", position=0)
    assert (client.session.phase, client.session.epoch) == (Phase.BINDING, 2)


@pytest.mark.parametrize("code", ["unauthorised", "wrong_model", "unsupported", "draining"])
def test_a_hop_that_no_retry_mends_is_left(code: ErrorCode) -> None:
    (need,) = bound().refuse(code, stage=2)
    assert isinstance(need, NeedRoute)
    assert need.lost == {"c"}


def test_an_error_of_an_older_epoch_is_ignored() -> None:
    assert bound().refuse("fenced", epoch=0) == []


def test_an_error_of_a_stage_that_the_route_does_not_have_is_ignored() -> None:
    assert bound("a").refuse("fenced", stage=4) == []


# --- rule 14: close -----------------------------------------------------------------------------------


def test_a_close_goes_to_every_hop_once() -> None:
    client = bound()
    assert [(stage, type(message)) for stage, message in told(client.session.close())] == [
        (0, Close),
        (1, Close),
        (2, Close),
    ]
    assert client.session.close() == []


def test_a_session_that_was_never_bound_has_nobody_to_tell() -> None:
    assert Client().session.close() == []


def test_a_closed_session_believes_nobody() -> None:
    client = bound()
    (step,) = steps(client.step(1))
    client.session.close()
    assert client.answer(step) == []
    assert client.refuse("fenced") == []
    assert client.session.on_lost(frozenset([PeerId("a")]), "gone") == []
