"""The client's side of the session protocol (docs/protocol.md): a state machine without I/O.

Calls of the user and messages of the hops go in, effects come out; whoever drives the machine carries
them out in order. The machine owns what is true of a session: its history (as tags), the commit, the
epoch, what is outstanding. It never sees a tensor and knows no clock.

    UNBOUND --bind()--> BINDING --all acknowledged--> REPLAYING --all ready--> READY <--> WAITING
                          ^                              |                       |
                          |--------- bind(), with epoch + 1, after a refusal ----'
                          '--------- bind() with another route --- ROUTELESS <--- a hop is lost
"""

from collections import deque
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated

import msgspec

from swarm.errors import LocalProtocolError
from swarm.handover import Handover, Retiring
from swarm.history import MAX_INSIDE, History
from swarm.outbox import Outbox
from swarm.replays import CLIENT, Feeding, Holding, Replay, plan_replays
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
    TellPeer,
)
from swarm.wire.blocks import Hop, PeerId, Route, SessionId, Span
from swarm.wire.bounds import MAX_STAGES, BlockIndex, Epoch, Peer, Position, Session, Tag
from swarm.wire.messages import (
    Bind,
    BindAck,
    Close,
    CopyPages,
    Credit,
    Detach,
    ForkOf,
    NextHop,
    Ready,
    SessionError,
    SessionProgress,
    StartReplay,
    StateStep,
    StepResult,
    WantCredit,
)

REPLAY_CHUNK_TOKENS = 256
CREDIT_WAIT_MS = 2000
MAX_FAILURES = 3
MAX_UNASKED = 64  # results in a row: what is sent twice is answered twice, a window of steps at a time
MAX_GAPS = 16  # in a row: a retry may honestly meet one at every hop further down
MIN_RETRY_MS, MAX_RETRY_MS = 50, 5_000
BLAMED = frozenset({"unauthorised", "wrong_model", "unsupported", "bad_message", "draining", "fenced"})
NOBODYS_FAULT = frozenset({"busy", "draining"})
ACCOMPLICES = {"bad_message": -1, "gap": -1, "internal": 1}
"""Whose refusal may be a neighbour's fault: what came is the predecessor's, a broken link the successor's."""


class Phase(Enum):
    """Where the session stands; steps are sent only while READY.

    ROUTELESS: a hop is lost or suspected, and nothing is sent or believed until another route is bound.
    """

    UNBOUND = auto()
    BINDING = auto()
    REPLAYING = auto()
    READY = auto()
    WAITING = auto()
    ROUTELESS = auto()
    CLOSED = auto()


class Ticket(msgspec.Struct, frozen=True):
    """All of a session but its history: enough to re-attach after a restart, with the same client key."""

    session: Session
    key: Annotated[bytes, msgspec.Meta(max_length=64)]
    epoch: Epoch
    commit: Position
    tag: Tag
    is_long: bool = False
    hops: Annotated[tuple[tuple[Peer, BlockIndex, BlockIndex], ...], msgspec.Meta(max_length=MAX_STAGES)] = (
        msgspec.field(default=(), name="route")
    )
    inside: Annotated[tuple[tuple[Position, Position], ...], msgspec.Meta(max_length=MAX_INSIDE)] = ()
    """Positions that no hop can fork at: ranges `[start, end)` within what were single steps."""

    @property
    def route(self) -> Route:
        """The servers that held the session."""
        return tuple(Hop(PeerId(peer), Span(start, end)) for peer, start, end in self.hops)

    def __post_init__(self) -> None:
        _ = self.route  # raises ValueError where a hop has no blocks


@dataclass(slots=True)
class ClientSession:
    """One session, from the client's end."""

    session_id: SessionId
    client: PeerId
    fingerprint: str
    history: History
    outbox: Outbox = field(default_factory=Outbox)
    lease_ms: int = 1_800_000
    parent: ForkOf | None = None
    replay_chunk_tokens: int = REPLAY_CHUNK_TOKENS
    carries_all_links: bool = False
    is_long: bool = False
    phase: Phase = Phase.UNBOUND
    epoch: int = 0
    commit: int = 0
    route: Route = ()
    _addresses: Mapping[PeerId, tuple[str, ...]] = field(default_factory=dict)
    _acks: dict[int, BindAck] = field(default_factory=dict)
    _relays: set[tuple[PeerId, PeerId]] = field(default_factory=set)
    _replays: deque[Replay] = field(default_factory=deque)
    _feeding: Feeding = field(default_factory=Feeding)
    _bound_commit: int = 0
    _num_failures: int = 0
    _num_gaps: int = 0
    _num_unasked: int = 0
    _has_ticket: bool = False
    _left: set[PeerId] = field(default_factory=set)
    _handover: Handover = field(default_factory=Handover)

    # --- what the user asks ------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Tokens of the history, outstanding steps included."""
        return len(self.history)

    @property
    def is_bound(self) -> bool:
        """True while every hop of the route has acknowledged the bind."""
        return self.phase in (Phase.REPLAYING, Phase.READY, Phase.WAITING)

    @property
    def missing_acks(self) -> set[PeerId]:
        """Servers that were bound and have not acknowledged."""
        silent = (hop.peer_id for stage, hop in enumerate(self.route) if stage not in self._acks)
        return set(silent) if self.phase is Phase.BINDING else set()

    def is_at(self, peer: PeerId, stage: int) -> bool:
        """Tell whether `stage` of the route is on this server."""
        return 0 <= stage < len(self.route) and self.route[stage].peer_id == peer

    def awaits(self, said: Ready | SessionProgress) -> bool:
        """Tell whether what a hop says is about what it lacked when it was bound."""
        is_ours = said.epoch == self.epoch and said.stage in self._feeding.lacking
        return is_ours and self.phase is Phase.REPLAYING

    def has_come_further(self, progress: SessionProgress) -> bool:
        """Tell whether a replay has come further on a hop than we have heard before."""
        if not self.awaits(progress):
            return False
        position, held = min(progress.position, self._bound_commit), self._acks[progress.stage].position
        return self._feeding.has_come_further(progress.stage, position, held)

    def has_in_hand(self, progress: SessionProgress) -> bool:
        """Tell whether a hop has what we wait for among the steps in its hands."""
        if not progress.num_in_hand or progress.epoch != self.epoch:
            return False
        if self.phase is Phase.READY:
            return self.outbox.oldest_seq > progress.executed_seq
        return self.phase is Phase.REPLAYING and progress.stage in self._feeding.fed

    def step(self, labels: Sequence[int], rows: int) -> tuple[int, list[Effect]]:
        """Append n >= 0 tokens and ask for the last `rows` outputs; returns the step's number too."""
        self._check_open()
        number = self.outbox.add(self.position, len(labels), rows)
        self.history.append(labels)
        return number, self._send()

    def rollback(self, position: int) -> list[Effect]:
        """Go back to `position`; the hops learn it from the next step.

        Outstanding steps above it are forgotten. Raises LocalProtocolError if the position is not ours or
        lies inside an outstanding step.
        """
        self._check_open()
        if not 0 <= position <= self.position:
            raise LocalProtocolError(
                f"cannot roll back to {position}: the session has {self.position} tokens"
            )
        if self.outbox.cuts_through(position):
            raise LocalProtocolError(
                f"cannot roll back to {position}: it lies inside a step that is under way"
            )
        self.outbox.drop_above(position)
        if position == self.position:
            return []
        self.history.truncate(position)
        self.commit = min(self.commit, position)
        if self.phase in (Phase.BINDING, Phase.REPLAYING) and self.route:
            return self.bind(self.route, self._addresses)
        return []

    def begin_anew(self, history: History, *, is_long: bool) -> list[Effect]:
        """Have everything computed again with the rotary frequencies of long sequences, or of short ones.

        `history` names the same tokens by other names, so that no hop takes what it holds for ours. Raises
        LocalProtocolError while steps are outstanding.
        """
        self._check_open()
        if len(history) != self.position or self.commit != self.position:
            raise LocalProtocolError("a session begins anew between two steps, with all of its tokens")
        self.history, self.is_long, self.parent = history, is_long, None
        is_unbound = self.phase in (Phase.UNBOUND, Phase.ROUTELESS)
        return [] if is_unbound else self.bind(self.route, self._addresses)

    def fork(self, session_id: SessionId, position: int) -> "ClientSession":
        """A child that shares `[0, position)`; call its `bind` with our route.

        Raises LocalProtocolError above the commit: what lies there may still change.
        """
        self._check_open()
        if not 0 <= position <= self.commit:
            raise LocalProtocolError(f"cannot fork at {position}: only {self.commit} tokens are final")
        child = ClientSession(session_id, self.client, self.fingerprint, self.history.fork(position))
        child.commit = position
        child.lease_ms = self.lease_ms
        child.outbox.window = self.outbox.window
        child.parent = ForkOf(self.session_id, position, self.history.tag(position))
        child._relays = set(self._relays)
        child.carries_all_links = self.carries_all_links
        child.is_long = self.is_long
        return child

    def close(self, *, is_kept: bool = False) -> list[Effect]:
        """Free the session everywhere, or leave it there for its lease if `is_kept`. Idempotent."""
        was_bound = self.phase not in (Phase.UNBOUND, Phase.CLOSED)
        self.phase = Phase.CLOSED
        self.outbox.clear()
        hops = range(len(self.route)) if was_bound else ()
        farewell = (Detach if is_kept else Close)(session=self.session_id)
        return [TellHop(stage, farewell) for stage in hops]

    def ticket(self, epoch: int = 0) -> Ticket:
        """What a restarted client needs, beside the history itself, to go on with this session.

        With `epoch`, above ours, we may go up to that one before the next ticket is written down.
        """
        self._has_ticket = True
        return Ticket(
            session=self.session_id,
            key=self.history.key,
            epoch=max(self.epoch, epoch),
            commit=self.commit,
            tag=self.history.tag(self.commit),
            is_long=self.is_long,
            hops=tuple((hop.peer_id, hop.span.start, hop.span.end) for hop in self.route),
            inside=self.history.inside(),
        )

    # --- binding -----------------------------------------------------------------------------------

    def bind(self, route: Route, addresses: Mapping[PeerId, tuple[str, ...]] | None = None) -> list[Effect]:
        """Bind `route` under the next epoch. The driver writes the epoch down before it sends anything."""
        self._check_open()
        self.epoch += 1
        self.phase = Phase.BINDING
        self.route = route
        self._addresses = addresses or {}
        self._acks.clear()
        self._left.clear()
        self._replays.clear()
        self._feeding = Feeding()
        self._bound_commit = self.commit
        self.outbox.restart()
        packed = self.history.packed()
        binds: list[Effect] = [TellHop(stage, self._bind_for(stage, packed)) for stage in range(len(route))]
        return [*binds, OpenChain(self.epoch, frozenset(filter(self.is_relayed, range(len(route) - 1))))]

    def on_ack(self, ack: BindAck) -> list[Effect]:
        """A hop obeyed the bind: when all have, plan the replays."""
        if self.phase is not Phase.BINDING or ack.epoch != self.epoch or ack.stage >= len(self.route):
            return []
        peer = self.route[ack.stage].peer_id
        if ack.position > self.position or self.history.tag(ack.position) != ack.tag:
            return self._lose({peer}, "a server claims a history that is not ours")
        if not ack.linked and ack.stage < len(self.route) - 1 and not self.is_relayed(ack.stage):
            self._relays.add((peer, self.route[ack.stage + 1].peer_id))
            return self.bind(self.route, self._addresses)
        self._acks[ack.stage] = ack
        self.outbox.credit[ack.stage] = ack.credit
        if len(self._acks) < len(self.route):
            return []
        acks = [self._acks[stage] for stage in range(len(self.route))]
        self._handover.begin(self._receivers(acks))
        holdings = [self._holding_of(ack) for ack in acks]
        self._replays.extend(plan_replays(holdings, self._bound_commit))
        self.parent = None
        self.phase = Phase.REPLAYING
        return self._next_copies()

    def _next_copies(self) -> list[Effect]:
        """Have retiring servers copy their pages to those that take their place; then the replays."""
        self._feeding.begin(self._handover.receiving, self._handover.receiving)
        if not self._feeding.lacking:
            return self._next_replay()
        return [
            TellPeer(peer, self._copy_order(stage, peer)) for stage, peer in self._handover.receiving.items()
        ]

    def copy_failed(self, peers: frozenset[PeerId]) -> list[Effect]:
        """Pages from these servers will not come: bind again, and replay."""
        is_waiting = self._handover.involves(peers)
        self._handover.forget(peers)
        if self.phase is Phase.REPLAYING and is_waiting:
            return self.bind(self.route, self._addresses)
        return []

    def retire(self, peer: PeerId) -> list[Effect]:
        """A server of the route is about to stop: take another, to which it copies what it holds."""
        stages = [stage for stage, hop in enumerate(self.route) if hop.peer_id == peer]
        if self.phase in (Phase.UNBOUND, Phase.CLOSED) or not stages:
            return []
        self._handover.retiring[peer] = Retiring(self.route[stages[0]], self.slot(stages[0]))
        return self._lose({peer}, "it is about to stop", is_blamed=False)

    def on_ready(self, ready: Ready) -> list[Effect]:
        """A hop that lacked something has it."""
        if self.phase is not Phase.REPLAYING or ready.epoch != self.epoch:
            return []
        self._feeding.lacking.discard(ready.stage)
        return [] if self._feeding.lacking else self._next_replay()

    def on_lost(self, peers: frozenset[PeerId], reason: str, *, is_blamed: bool = True) -> list[Effect]:
        """Hops are gone or suspected: their late frames will not be trusted."""
        if self.phase in (Phase.UNBOUND, Phase.CLOSED) or not any(hop.peer_id in peers for hop in self.route):
            return []
        return self._lose(set(peers), reason, is_blamed=is_blamed)

    def on_stall(self) -> list[Effect]:
        """Nothing moves and nobody says why: each hop may be to blame, and who was to hand over does not."""
        self._handover.forget(frozenset(self._handover.retiring))
        return self._lose({hop.peer_id for hop in self.route}, "nothing moves")

    # --- steps -------------------------------------------------------------------------------------

    def on_result(self, result: StepResult, payload: Sized) -> list[Effect]:
        """The last hop answered. What a step made is known by its name, however often it was sent."""
        if self.phase not in (Phase.READY, Phase.WAITING) or result.epoch != self.epoch:
            return []
        step = self.outbox.take(result, len(payload), self.history)
        self._num_unasked = 0 if step is not None else self._num_unasked + 1
        if self._num_unasked > MAX_UNASKED:
            return self._lose({self.route[-1].peer_id}, "it answers what nobody asked")
        if step is None:
            return []
        self.commit = step.end
        self._num_failures = self._num_gaps = 0
        return [Deliver(step.number, payload, result.links), *self._send()]

    def on_error(self, error: SessionError) -> list[Effect]:
        """A hop refused a bind, a replay or a step."""
        is_ours = error.epoch == self.epoch and error.stage < len(self.route)
        is_ours |= error.code == "fenced" and error.epoch > self.epoch  # who took over says so with its own
        if self.phase in (Phase.UNBOUND, Phase.CLOSED) or not is_ours:
            return []
        if error.code == "too_long" or (error.code == "fenced" and self._has_ticket):
            self.phase = Phase.CLOSED
            return [Broken(error.code, error.message)]
        if error.code in BLAMED:
            return self._lose_by(error)
        return [] if self.phase is Phase.ROUTELESS else self._on_refusal(error)

    def _on_refusal(self, error: SessionError) -> list[Effect]:
        """Busy, gap or internal: mended by trying again, here or elsewhere."""
        if error.code in ("busy", "gap") and self.phase in (Phase.READY, Phase.WAITING):
            return self._on_refused_step(error)
        self._num_failures += 1
        if error.code == "busy" or self._num_failures > MAX_FAILURES:
            return self._lose_by(error)
        return self.bind(self.route, self._addresses)

    def _lose_by(self, error: SessionError) -> list[Effect]:
        """Leave who refused us, and who may be the reason."""
        stages = {error.stage, error.stage + ACCOMPLICES.get(error.code, 0)}
        peers = {hop.peer_id for stage, hop in enumerate(self.route) if stage in stages}
        is_blamed = error.code not in NOBODYS_FAULT
        return self._lose(peers, f"{error.code}: {error.message}", is_blamed=is_blamed)

    def on_credit(self, credit: Credit) -> list[Effect]:
        """A hop granted more room."""
        if credit.epoch != self.epoch or credit.stage not in self.outbox.credit:
            return []
        self.outbox.credit[credit.stage] = max(self.outbox.credit[credit.stage], credit.position)
        return self._send()

    def retry(self, attempt: int) -> list[Effect]:
        """The wait after `busy` is over: send what is outstanding again."""
        if self.phase is not Phase.WAITING or attempt != self.outbox.attempt:
            return []
        return self._resend()

    # --- inside --------------------------------------------------------------------------------------

    def is_relayed(self, stage: int) -> bool:
        """Tell whether the link behind `stage` goes through us: the hop cannot reach its successor."""
        link = (self.route[stage].peer_id, self.route[stage + 1].peer_id)
        return self.carries_all_links or link in self._relays

    def slot(self, stage: int) -> int:
        """How often the path visited this stage's server before."""
        peer = self.route[stage].peer_id
        return sum(hop.peer_id == peer for hop in self.route[:stage])

    def _check_open(self) -> None:
        if self.phase is Phase.CLOSED:
            raise LocalProtocolError("the session is closed")

    def _bind_for(self, stage: int, boundaries: tuple[bytes, bytes]) -> Bind:
        hop = self.route[stage]
        through_client = stage == 0 or self.is_relayed(stage - 1)
        return Bind(
            session=self.session_id,
            epoch=self.epoch,
            stage=stage,
            slot=self.slot(stage),
            num_stages=len(self.route),
            start=hop.span.start,
            end=hop.span.end,
            fingerprint=self.fingerprint,
            previous=self.client if through_client else self.route[stage - 1].peer_id,
            next=self._next_of(stage),
            commit=self._bound_commit,
            positions=boundaries[0],
            tags=boundaries[1],
            parent=self.parent,
            copy_from=self._handover.source_for(hop),
            lease_ms=self.lease_ms,
            is_long=self.is_long,
        )

    def _receivers(self, acks: Sequence[BindAck]) -> dict[int, PeerId]:
        """Stages that lack something which a retiring server can copy to them."""
        lacking = (ack.stage for ack in acks if ack.position < self._bound_commit)
        sources = ((stage, self._handover.source_for(self.route[stage])) for stage in lacking)
        return {stage: peer for stage, peer in sources if peer is not None}

    def _holding_of(self, ack: BindAck) -> Holding:
        """What a hop holds once its pages have been copied; its log is empty then."""
        if ack.stage in self._handover.receiving:
            return Holding(self._bound_commit, self._bound_commit)
        return Holding(ack.position, ack.log_from)

    def _copy_order(self, stage: int, source: PeerId) -> CopyPages:
        hop = self.route[stage]
        return CopyPages(
            session=self.session_id,
            epoch=self.epoch,
            slot=self._handover.retiring[source].slot,
            position=self._bound_commit,
            tag=self.history.tag(self._bound_commit),
            start=hop.span.start,
            end=hop.span.end,
            stage=stage,
            to=NextHop(hop.peer_id, self._addresses.get(hop.peer_id, ())),
        )

    def _next_of(self, stage: int) -> NextHop | None:
        if stage == len(self.route) - 1 or self.is_relayed(stage):
            return None
        peer = self.route[stage + 1].peer_id
        return NextHop(peer, self._addresses.get(peer, ()), self.slot(stage + 1))

    def _lose(self, peers: set[PeerId], reason: str, *, is_blamed: bool = True) -> list[Effect]:
        if self.phase is Phase.ROUTELESS and peers <= self._left:
            return []  # it goes on talking, but we are leaving already
        self.phase = Phase.ROUTELESS
        self._left |= peers
        self._num_gaps = self._num_unasked = 0
        self._acks.clear()
        self.outbox.credit.clear()
        return [NeedRoute(frozenset(peers), reason, is_blamed)]

    def _next_replay(self) -> list[Effect]:
        if not self._replays:
            self.phase = Phase.READY
            farewell = Close(session=self.session_id)
            return [*(TellPeer(peer, farewell) for peer in self._handover.end()), *self._send()]
        replay = self._replays.popleft()
        self._feeding.begin(replay.lacking, replay.fed)
        if replay.source == CLIENT:
            return self._replay_from_ids(replay)
        order = StartReplay(
            session=self.session_id,
            epoch=self.epoch,
            slot=self.slot(replay.source),
            start=replay.start,
            start_tag=self.history.tag(replay.start),
            end=replay.end,
            end_tag=self.history.tag(replay.end),
            stop_stage=replay.stop,
        )
        return [TellHop(replay.source, order)]

    def _replay_from_ids(self, replay: Replay) -> list[Effect]:
        chunk = self.replay_chunk_tokens
        starts = range(replay.start, replay.end, chunk)
        return [self._state_step(at, min(at + chunk, replay.end), replay.stop) for at in starts]

    def _state_step(self, start: int, end: int, stop_stage: int) -> SendState:
        self.history.mark(end)  # should another hop fail meanwhile, this part need not be sent again
        return SendState(
            StateStep(
                epoch=self.epoch,
                position=start,
                num_tokens=end - start,
                base_tag=self.history.tag(start),
                tag=self.history.tag(end),
                stop_stage=stop_stage,
            )
        )

    def _send(self) -> list[Effect]:
        """Send what the window and the credit allow, and ask for the credit that is lacking."""
        if self.phase is not Phase.READY:
            return []
        steps = self.outbox.next_steps(self.epoch, self.commit, self.history)
        effects: list[Effect] = [SendStep(step) for step in steps]
        wanted = self.outbox.credit_to_ask()
        return effects if wanted is None else [*effects, *self._ask_credit(wanted)]

    def _ask_credit(self, position: int) -> list[Effect]:
        short = [stage for stage, credit in self.outbox.credit.items() if credit < position]
        return [TellHop(stage, self._want_credit(stage, position)) for stage in short]

    def _want_credit(self, stage: int, position: int) -> WantCredit:
        return WantCredit(
            session=self.session_id,
            epoch=self.epoch,
            slot=self.slot(stage),
            position=position,
            wait_ms=CREDIT_WAIT_MS,
            attempt=self.outbox.attempt,
        )

    def _on_refused_step(self, error: SessionError) -> list[Effect]:
        if error.attempt < self.outbox.attempt:
            return []
        self._num_gaps += error.code == "gap" or error.position < self.commit
        if self._num_gaps > MAX_GAPS:
            return self._lose_by(error)
        if error.position < self.commit:
            return self.bind(self.route, self._addresses)
        if error.code == "busy":
            self.phase = Phase.WAITING
            after_ms = min(max(error.retry_after_ms, MIN_RETRY_MS), MAX_RETRY_MS)
            return [RetryLater(self.outbox.attempt, after_ms, error.stage)]
        return self._resend()

    def _resend(self) -> list[Effect]:
        self.phase = Phase.READY
        self.outbox.resend()
        return self._send()


def read_ticket(raw: bytes) -> Ticket:
    """The ticket in `raw`. Raises LocalProtocolError if there is none."""
    try:
        return msgspec.msgpack.decode(raw, type=Ticket)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"this is no ticket to a session: {error}"[:200]) from error


def reattach(ticket: Ticket, labels: Sequence[int], client: PeerId, fingerprint: str) -> ClientSession:
    """The session of a ticket; `labels` is the history up to the ticket's commit. Call its `bind`.

    Raises LocalProtocolError if the history is not the one that the ticket names.
    """
    history = History.of(ticket.key, labels[: ticket.commit], ticket.inside)
    if len(history) != ticket.commit or history.tag(ticket.commit) != ticket.tag:
        raise LocalProtocolError("the ticket belongs to another history")
    session = ClientSession(SessionId(ticket.session), client, fingerprint, history)
    session.epoch, session.commit = ticket.epoch, ticket.commit
    session.is_long = ticket.is_long
    return session
