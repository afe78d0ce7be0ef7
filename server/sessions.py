"""The hop's side of the session protocol (docs/protocol.md): a state machine without I/O.

Frames and completed computations go in, effects come out; whoever drives the machine carries them out.
One machine is one session on one hop. Three contents matter and must not be confused:

- `done`: what the KV cache holds, as boundaries (position, tag);
- `planned`: what it will hold once every accepted step has run;
- the log: what was sent down the chain, from which a lost successor can be fed again.

Steps of a session run one after the other. A step writes at its own position, so a rollback needs no
command of its own, and a computation that a newer epoch made stale does no harm: it wrote above what
the new epoch holds, and everything above is written again before it is read.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from server.replay_log import LogBudget, Payload, ReplayLog, replayed_steps
from server.session_effects import Counters, Effect, Execute, Link, Room, SendNext, SessionKey, Tell
from swarm.wire.blocks import PeerId, Span
from swarm.wire.bounds import ErrorCode
from swarm.wire.messages import (
    Bind,
    BindAck,
    Credit,
    Message,
    NextHop,
    Ready,
    SessionError,
    StartReplay,
    StateStep,
    Step,
    StepResult,
)
from swarm.wire.tags import Boundaries, unpack_boundaries

MAX_WAITING_STEPS = 64
MAX_REMEMBERED_STEPS = 256
BUSY_RETRY_MS = 200


@dataclass(slots=True)
class _Work:
    """An accepted step, or a replayed part of the history, waiting or running."""

    message: Step | StateStep
    payload: Payload


@dataclass(slots=True)
class HopSession:
    """One session on one hop.

    `room` grants KV room: bookkeeping with integers, the only thing that is asked back.
    """

    key: SessionKey
    span: Span
    log: ReplayLog
    room: Room
    credit_ahead: int = 256
    epoch: int = -1
    stage: int = 0
    num_stages: int = 1
    previous: PeerId | None = None
    copy_from: PeerId | None = None
    is_long: bool = False
    next: NextHop | None = None
    commit: int = 0
    credit: int = 0
    executed_seq: int = -1
    let_go_epoch: int = -1
    """Up to this epoch nobody waits for what the session's streams bring."""
    counters: Counters = field(default_factory=Counters)
    _done: Boundaries = field(default_factory=Boundaries)
    _planned: Boundaries = field(default_factory=Boundaries)
    _waiting: deque[_Work] = field(default_factory=deque)
    _running: _Work | None = None
    _last_seq: int = -1
    _refused_attempt: int = -1
    _owes_ready: bool = False
    _commit_tag: int | None = None
    _last_commit: int = -1
    _executed: dict[tuple[int, int], None] = field(default_factory=dict)
    """Ends and tags of the last steps."""

    # --- what others may ask -----------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Tokens that the KV cache holds for certain."""
        return self._done.length

    @property
    def num_waiting(self) -> int:
        """Accepted steps that do not run yet."""
        return len(self._waiting)

    @property
    def num_in_hand(self) -> int:
        """Accepted steps that somebody waits for, the one that runs included."""
        return len(self._waiting) + self.wants_running

    def accepted(self) -> Iterator[Payload]:
        """What the steps that run or wait have brought."""
        if self._running is not None:
            yield self._running.payload
        for work in self._waiting:
            yield work.payload

    @property
    def is_idle(self) -> bool:
        """True if nothing runs or waits."""
        return self._running is None and not self._waiting

    def can_fork(self, position: int, tag: int) -> bool:
        """Tell whether a child may share `[0, position)`.

        Only a position whose tag we know will do: the order came on another stream than the steps, and a
        rollback of the parent may have overtaken it.
        """
        return self._done.tag_at(position) == tag

    def fork(self, key: SessionKey, position: int, tag: int, room: Room) -> "HopSession":
        """A child that shares `[0, position)`; the caller has asked `can_fork` and forks the KV cache."""
        child = HopSession(key, self.span, self.log.fork(position), room, self.credit_ahead)
        child._done = self._done.copy()
        child._done.truncate(position, tag)
        return child

    # --- binding ---------------------------------------------------------------------------------------

    def bind(self, bind: Bind) -> list[Effect]:
        """Obey a BIND of a higher epoch; the caller has checked the epoch. Raises ValueError if malformed."""
        theirs = unpack_boundaries(bind.positions, bind.tags)
        self.epoch, self.stage, self.num_stages = bind.epoch, bind.stage, bind.num_stages
        self.previous, self.next, self.commit = PeerId(bind.previous), bind.next, bind.commit
        self.copy_from = PeerId(bind.copy_from) if bind.copy_from else None
        self.is_long = bind.is_long
        self._commit_tag = theirs.get(bind.commit)
        self.executed_seq = self._last_seq = self._refused_attempt = -1
        self._waiting.clear()
        position, tag = self._done.longest_match(theirs)
        self._done.truncate(position, tag)
        self.log.truncate(position)
        self._planned = self._done.copy()
        self._owes_ready = position < self.commit
        return [Link(self.epoch, self.next)]

    def linked(self, epoch: int, *, is_linked: bool) -> list[Effect]:
        """The connection to the successor stands, or cannot be had: acknowledge the bind."""
        if epoch != self.epoch:
            return []
        self._grant_ahead(max(self.commit, self._done.length))
        ack = BindAck(
            session=self.key.session,
            epoch=self.epoch,
            stage=self.stage,
            position=self._done.length,
            tag=self._done.tag,
            log_from=min(self.log.start, self._done.length),
            credit=self.credit,
            linked=is_linked,
        )
        return [Tell(ack)]

    def can_adopt(self, epoch: int) -> bool:
        """Tell whether copied pages may be put into the cache now: nothing else writes there."""
        return epoch == self.epoch and self._owes_ready and self.is_idle and self._commit_tag is not None

    def adopt(self, epoch: int) -> list[Effect]:
        """The KV cache up to the commit was copied from the server that we replace: go on from there."""
        if not self.can_adopt(epoch) or self._commit_tag is None:
            return []
        self._done.push(self.commit, self._commit_tag)
        self._planned = self._done.copy()
        self.log.skip(self.commit)
        self._owes_ready = False
        return [Tell(self._ready())]

    def drop_cache(self) -> None:
        """The KV cache of an idle session was given up to make room: the next step finds a gap.

        The log goes too, for its cuts can no longer be named; and what was granted must be asked for again.
        """
        assert self.is_idle, "a cache was given up under a running step"
        self._done = Boundaries()
        self._planned = Boundaries()
        self._executed.clear()
        self.log.truncate(0)
        self.credit = 0

    @property
    def wants_running(self) -> bool:
        """Whether somebody still waits for the computation that is under way."""
        running = self._running
        return running is not None and self.let_go_epoch < running.message.epoch == self.epoch

    @property
    def will_pass_on_state(self) -> bool:
        """Whether what runs now is a part of a replay that the successor lacks as well."""
        message = self._running.message if self._running else None
        return isinstance(message, StateStep) and self.stage < message.stop_stage

    def let_go(self) -> None:
        """Nobody speaks for the session any more: what waits does not run.

        Whoever comes back binds it anew and sends again what this hop lacks.
        """
        self.let_go_epoch = self.epoch
        self._waiting.clear()
        self._planned = self._done.copy()

    def trim(self) -> int:
        """Take back what was granted far ahead of an idle session, as a rollback leaves it.

        Returns the position up to which it keeps its room; what lies above must be asked for again.
        """
        assert self.is_idle, "room was taken back under a running step"
        self.credit = min(self.credit, self._done.length + self.credit_ahead)
        return self.credit

    # --- the chain ------------------------------------------------------------------------------------

    def on_step(self, step: Step, payload: Payload, *, is_blocked: bool = False) -> list[Effect]:
        """Accept, drop or refuse a step; `is_blocked` says that the outgoing queue is full."""
        if step.epoch != self.epoch or step.seq <= self._last_seq:
            self.counters.stale_frames += 1
            return []
        has_gap = step.seq != self._last_seq + 1
        self._last_seq = step.seq
        if step.attempt <= self._refused_attempt:
            self.counters.stale_frames += 1
            return []
        if has_gap or not self._planned.allows(step.position, step.base_tag):
            return self._refuse(step, "gap", "the step does not continue what this hop holds")
        if is_blocked or len(self._waiting) >= MAX_WAITING_STEPS:
            return self._refuse(step, "busy", "the next server does not keep up", BUSY_RETRY_MS)
        end = step.position + step.num_tokens
        if not self._has_room(end):
            return self._refuse(step, "busy", "no KV room left for this session", BUSY_RETRY_MS)
        self.commit = step.commit
        return self._accept(step, payload)

    def on_state_step(self, step: StateStep, payload: Payload) -> list[Effect]:
        """Accept a replayed part of the history."""
        if step.epoch != self.epoch:
            self.counters.stale_frames += 1
            return []
        if not self._planned.allows(step.position, step.base_tag):
            return self._refuse(step, "gap", "the replay does not continue what this hop holds")
        if not self._has_room(step.position + step.num_tokens):
            return self._refuse(step, "busy", "no KV room left for this session", BUSY_RETRY_MS)
        return self._accept(step, payload)

    def executed(self, output: Payload) -> list[Effect]:
        """The running computation is finished: note it, pass its output on, start the next."""
        work, self._running = self._running, None
        assert work is not None, "executed() without a running step"
        effects: list[Effect] = []
        if work.message.epoch == self.epoch:
            effects = self._finish(work.message, output)
        return effects + self._start()

    def failed(self, code: ErrorCode, reason: str) -> list[Effect]:
        """The running computation failed: the cache below its position is as it was.

        What waited behind it is refused with it, in the name of the last: it may belong to a newer attempt,
        and the client does not listen to refusals of older ones.
        """
        work, self._running = self._running, None
        assert work is not None, "failed() without a running step"
        if work.message.epoch != self.epoch:
            return self._start()
        last = self._waiting[-1] if self._waiting else work
        self._waiting.clear()
        self._planned = self._done.copy()
        return self._refuse(last.message, code, reason, BUSY_RETRY_MS if code == "busy" else 0)

    def forgotten(self, *, is_lost: bool = False) -> list[Effect]:
        """The running step goes back to what the blocks' windows have left behind: the next finds a gap.

        With `is_lost` the whole cache is gone, whichever epoch the step was of. To the client it is a cache
        that was given up: the gap lies below its commit.
        """
        work, self._running = self._running, None
        assert work is not None, "forgotten() without a running step"
        if work.message.epoch != self.epoch and not is_lost:
            return self._start()
        last = self._waiting[-1] if self._waiting else work
        self._waiting.clear()
        self.drop_cache()
        if last.message.epoch != self.epoch:
            return []
        return self._refuse(last.message, "gap", "this server no longer holds what the step continues")

    def overflowed(self, message: Message) -> list[Effect]:
        """The outgoing queue had no room for `message`: the client tries again, we stay ahead."""
        if not isinstance(message, Step | StateStep) or message.epoch != self.epoch:
            return []
        if isinstance(message, StateStep):  # to leave us for want of room would help nobody
            return self._refuse(message, "gap", "the next server does not keep up with the replay")
        return self._refuse(message, "busy", "the next server does not keep up", BUSY_RETRY_MS)

    def link_lost(self, epoch: int) -> list[Effect]:
        """The successor's stream ended: the client must bind the route anew."""
        if epoch != self.epoch:
            return []
        return [Tell(self._error("internal", "the link to the next server broke"))]

    def spoiled(self, epoch: int, reason: str) -> list[Effect]:
        """What came along the chain of `epoch` broke the rules."""
        return [Tell(self._error("bad_message", reason[:300]))] if epoch == self.epoch else []

    def replay(self, order: StartReplay) -> list[Effect]:
        """Send the logged `[start, end)` to the successor."""
        if order.epoch != self.epoch:
            self.counters.stale_frames += 1
            return []
        if order.start >= order.end:
            return [Tell(self._error("bad_message", "a replay needs start < end"))]
        if not self.log.covers(order.start, order.end):
            return [Tell(self._error("gap", "the log no longer covers what was asked for"))]
        steps = replayed_steps(order, self.log, self._done.tag_at)
        return [SendNext(self.epoch, step, payload, is_logged=True) for step, payload in steps]

    # --- inside ---------------------------------------------------------------------------------------

    def _has_room(self, end: int) -> bool:
        if end > self.credit:
            self.credit = max(self.credit, self.room(end))
        return end <= self.credit

    def _grant_ahead(self, position: int) -> None:
        """Grant what nobody else needs, before the client has to ask for it."""
        self.credit = max(self.credit, self.room(position + self.credit_ahead, is_ahead=True))

    def _accept(self, message: Step | StateStep, payload: Payload) -> list[Effect]:
        self._planned.truncate(message.position, message.base_tag)
        self._planned.push(message.position + message.num_tokens, message.tag)
        self._waiting.append(_Work(message, payload))
        return self._start()

    def _start(self) -> list[Effect]:
        """Start waiting work until something really runs: steps without tokens need no computation."""
        effects: list[Effect] = []
        while self._running is None and self._waiting:
            work = self._waiting.popleft()
            message = work.message
            if isinstance(message, StateStep):
                again = min(message.position + message.num_tokens, self.commit, self._done.length)
                self.counters.recomputed_below_commit += max(0, again - message.position)
            self._done.truncate(message.position, message.base_tag)
            self.log.truncate(message.position)
            if message.num_tokens == 0:
                effects += self._finish(message, work.payload)
            else:
                self._running = work
                effects.append(Execute(message.position, message.num_tokens, work.payload))
        return effects

    def _finish(self, message: Step | StateStep, output: Payload) -> list[Effect]:
        end = message.position + message.num_tokens
        self._done.push(end, message.tag)
        if self.stage < self.num_stages - 1:
            self.log.append(message.position, message.num_tokens, output)
        else:
            self.log.skip(end)
        self.counters.executed_tokens += message.num_tokens
        self._note_new((end, message.tag), message.commit if isinstance(message, Step) else self._last_commit)
        if isinstance(message, StateStep):
            return self._pass_on_state(message, output)
        self.executed_seq = message.seq
        return [self._pass_on(message, output), *self._renew_credit(end)]

    def _renew_credit(self, position: int) -> list[Effect]:
        """Grant more before the client has to ask for it."""
        if self.credit - position > self.credit_ahead // 2:
            return []
        before = self.credit
        self._grant_ahead(position)
        if self.credit == before:
            return []
        return [
            Tell(Credit(session=self.key.session, epoch=self.epoch, position=self.credit, stage=self.stage))
        ]

    def _pass_on(self, step: Step, output: Payload) -> SendNext:
        links = step.links + 1
        if self.stage < self.num_stages - 1:
            return SendNext(self.epoch, msgspec.structs.replace(step, links=links, tensors=()), output)
        result = StepResult(
            epoch=step.epoch,
            seq=step.seq,
            position=step.position,
            num_tokens=step.num_tokens,
            tag=step.tag,
            links=links,
        )
        return SendNext(self.epoch, result, output[step.num_tokens - min(step.rows, step.num_tokens) :])

    def _note_new(self, boundary: tuple[int, int], commit: int) -> None:
        """Count a step, unless it was only sent again because another hop had refused it."""
        if boundary not in self._executed or commit != self._last_commit:
            self.counters.new_steps += 1
            self._last_commit = commit
            self._executed[boundary] = None
            if len(self._executed) > MAX_REMEMBERED_STEPS:
                del self._executed[next(iter(self._executed))]

    def _pass_on_state(self, step: StateStep, output: Payload) -> list[Effect]:
        effects: list[Effect] = []
        if self.stage < step.stop_stage:
            effects.append(SendNext(self.epoch, msgspec.structs.replace(step, tensors=()), output))
        if self._owes_ready and self._done.length >= self.commit:
            self._owes_ready = False
            effects.append(Tell(self._ready()))
        return effects

    def _ready(self) -> Ready:
        return Ready(session=self.key.session, epoch=self.epoch, stage=self.stage, position=self._done.length)

    def _refuse(
        self, message: Step | StateStep, code: ErrorCode, reason: str, retry_after_ms: int = 0
    ) -> list[Effect]:
        self.counters.refused_steps += 1
        seq = attempt = 0
        if isinstance(message, Step):
            seq, attempt = message.seq, message.attempt
            self._refused_attempt = max(self._refused_attempt, attempt)
        return [Tell(self._error(code, reason, seq, attempt, retry_after_ms))]

    def _error(
        self, code: ErrorCode, reason: str, seq: int = 0, attempt: int = 0, retry_after_ms: int = 0
    ) -> SessionError:
        return SessionError(
            session=self.key.session,
            epoch=self.epoch,
            code=code,
            message=reason,
            stage=self.stage,
            seq=seq,
            attempt=attempt,
            position=self._done.length,
            retry_after_ms=retry_after_ms,
        )


def new_session(
    key: SessionKey, span: Span, budget: LogBudget, room: Room, credit_ahead: int = 256
) -> HopSession:
    """An empty session, to be bound."""
    return HopSession(key, span, ReplayLog(budget), room, credit_ahead)
