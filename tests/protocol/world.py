"""A world for the session protocol: the shipped state machines, a hash for a model, and chance.

One seed is one schedule: which frame is delivered next, which computation ends, who is killed, frozen,
revived, suspected, restarted. The "model" hashes everything that a cache holds into every output, so that
a cache with the wrong contents cannot give a right answer.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from server.replay_log import LogBudget
from server.session_effects import Effect as HopEffect
from server.session_effects import Execute, Link, Room, SendNext, SessionKey, Tell
from server.session_table import KVRooms, Limits, Refused, SessionTable
from server.sessions import HopSession
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.bounds import ErrorCode
from swarm.wire.messages import (
    Bind,
    Close,
    CopyPages,
    Credit,
    Hello,
    Message,
    SessionError,
    StartReplay,
    StateStep,
    Step,
    WantCredit,
)

NUM_BLOCKS = 6
CLIENT = PeerId("client")
FINGERPRINT = "0123456789abcdef"
MASK = (1 << 61) - 1
REPLAY_CHUNK_TOKENS = 5  # small, so that short schedules have replays of several chunks


def mix(left: int, right: int) -> int:
    """A hash that is the same in every run."""
    return (((left * 0x2545F4914F6CDD1D + 0x9E3779B97F4A7C15) & MASK ^ right) * 1099511628211) & MASK


def run_block(block: int, kv: list[int], position: int, inputs: list[int]) -> list[int]:
    """One "transformer block": writes `kv` from `position` on, attends to all of it below."""
    del kv[position:]
    assert len(kv) == position, "a step ran above what the cache holds"
    outputs = []
    last = kv[-1] if kv else 0
    for value in inputs:
        last = mix(last * NUM_BLOCKS + block, value)
        kv.append(last)
        outputs.append(last ^ value)
    return outputs


def run_unsplit(kv: list[list[int]], position: int, labels: list[int]) -> list[int]:
    """Outputs of the whole model for the tokens from `position` on; `kv` has a list for every block."""
    values = labels
    for block, cache in enumerate(kv):
        values = run_block(block, cache, position, values)
    return values


class ListOperations:
    """Payloads of the simulator are lists of ints."""

    def num_bytes(self, payload: list[int]) -> int:
        return 8 * len(payload)

    def join(self, payloads: list[list[int]]) -> list[int]:
        return [value for payload in payloads for value in payload]

    def first(self, payload: list[int], num_tokens: int) -> list[int]:
        return payload[:num_tokens]


class Rooms(KVRooms):
    """Caches of one server, with a limit on tokens; shared prefixes are copied here."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kv: dict[SessionKey, dict[int, list[int]]] = {}
        self.granted: dict[SessionKey, int] = {}

    def open(self, key: SessionKey, span: Span) -> Room:
        self.kv[key] = {block: [] for block in range(span.start, span.end)}
        self.granted[key] = 0
        return lambda position, **_: self._grant(key, position)

    def fork(self, parent: SessionKey, key: SessionKey, position: int) -> Room:
        self.kv[key] = {block: kv[:position] for block, kv in self.kv[parent].items()}
        self.granted[key] = position
        return lambda position, **_: self._grant(key, position)

    def close(self, key: SessionKey) -> None:
        self.kv.pop(key, None)
        self.granted.pop(key, None)

    def _grant(self, key: SessionKey, position: int) -> int:
        others = sum(self.granted.values()) - self.granted[key]
        if others + position <= self.capacity:
            self.granted[key] = max(self.granted[key], position)
        return self.granted[key]


@dataclass(eq=False)
class Stream:
    """One direction of one chain stream, or of a control stream: frames in order, then perhaps an end."""

    source: PeerId
    target: PeerId
    hello: Hello | None = None
    frames: deque[tuple[Message, Any]] = field(default_factory=deque)
    is_closed: bool = False
    session: HopSession | None = None
    is_refused: bool = False
    epoch: int = 0
    owner: object = None


class Server:
    """A block server around the shipped session table."""

    def __init__(self, world: "WorldLike", peer: PeerId, span: Span, capacity: int, log_bytes: int) -> None:
        self.world = world
        self.peer = peer
        self.span = span
        self.rooms = Rooms(capacity)
        self.budget = LogBudget(log_bytes, ListOperations(), chunk_tokens=REPLAY_CHUNK_TOKENS)
        self.table = SessionTable(span, FINGERPRINT, self.rooms, self.budget, Limits(credit_ahead=4))
        self.is_frozen = False
        self.is_dead = False
        self.out: dict[SessionKey, Stream] = {}
        self.held: list[Stream] = []
        self.running: list[tuple[HopSession, Execute]] = []
        self.ever: list[HopSession] = []

    # control ---------------------------------------------------------------------------------------

    def on_control(self, message: Message, connection: object) -> None:
        now = self.world.now
        try:
            if isinstance(message, Bind):
                self.on_bind(message, connection)
            elif isinstance(message, StartReplay):
                key = SessionKey(CLIENT, SessionId(message.session), message.slot)
                self.world.counts["log_replays"] += 1
                self.carry_out(session := self.table.find(key, now), session.replay(message))
            elif isinstance(message, WantCredit):
                self.on_want_credit(message)
            elif isinstance(message, CopyPages):
                self.world.copy_pages(self, message)
            elif isinstance(message, Close):
                self.table.close(CLIENT, SessionId(message.session))
        except Refused as refusal:
            stage = getattr(message, "stage", 0)
            epoch = getattr(message, "epoch", 0)
            self.world.tell_client(
                self,
                SessionError(
                    session=message.session,  # type: ignore[attr-defined]
                    epoch=epoch,
                    code=refusal.code,
                    stage=stage,
                ),
            )

    def on_bind(self, bind: Bind, connection: object) -> None:
        before = self.table.get(SessionKey(CLIENT, SessionId(bind.session), bind.slot))
        held, epoch = (before.position, before.epoch) if before else (0, -1)
        session, effects = self.table.bind(CLIENT, bind, connection, self.world.now)
        if session is not before:
            self.ever.append(session)
        elif session.position < min(held, bind.commit):
            self.world.on_forgot(self, session, held, epoch)
        self.carry_out(session, effects)
        self.retry_held()

    def on_want_credit(self, want: WantCredit) -> None:
        session = self.table.find(SessionKey(CLIENT, SessionId(want.session), want.slot), self.world.now)
        if want.epoch != session.epoch:
            return
        session.credit = max(session.credit, session.room(want.position))
        if session.credit >= want.position:
            answer: Message = Credit(
                session=want.session, epoch=session.epoch, stage=session.stage, position=session.credit
            )
        else:
            answer = SessionError(
                session=want.session,
                epoch=session.epoch,
                code="busy",
                stage=session.stage,
                attempt=want.attempt,
                position=session.position,
                retry_after_ms=100,
            )
        self.world.tell_client(self, answer, session.stage)

    # chain -----------------------------------------------------------------------------------------

    def admit(self, stream: Stream) -> None:
        assert stream.hello is not None
        try:
            session = self.table.admit(stream.source, stream.hello, self.world.now)
        except Refused:
            stream.is_refused = stream.is_closed = True
            self.world.on_refused(stream)
            return
        if session is None:
            self.held.append(stream)
            return
        stream.session = session
        if stream.hello.direction == "output":
            self.world.attach(self.out[session.key], stream)

    def retry_held(self) -> None:
        held, self.held = self.held, []
        for stream in held:
            self.admit(stream)

    def on_chain(self, stream: Stream, message: Message, payload: Any) -> None:
        session = stream.session
        assert session is not None
        if self.table.get(session.key) is not session:
            return
        if isinstance(message, Step):
            is_blocked = self.world.chance(self.world.refusals)
            self.carry_out(session, session.on_step(message, payload, is_blocked=is_blocked))
        elif isinstance(message, StateStep):
            self.carry_out(session, session.on_state_step(message, payload))

    def carry_out(self, session: HopSession, effects: list[HopEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Tell):
                self.world.tell_client(self, effect.message, session.stage)
            elif isinstance(effect, Execute):
                self.running.append((session, effect))
            elif isinstance(effect, Link):
                self.link(session, effect)
            elif isinstance(effect, SendNext):
                self.send_next(session, effect)

    def link(self, session: HopSession, link: Link) -> None:
        """The old stream ends, a new one is opened; for the client's own, it comes to fetch."""
        old = self.out.pop(session.key, None)
        if old is not None:
            old.is_closed = True
        if link.next is None:
            self.out[session.key] = Stream(self.peer, CLIENT, epoch=session.epoch)
            self.carry_out(session, session.linked(link.epoch, is_linked=True))
            return
        hello = Hello(
            client=CLIENT,
            session=session.key.session,
            epoch=session.epoch,
            stage=session.stage + 1,
            slot=link.next.slot,
        )
        stream = self.world.open_stream(self.peer, PeerId(link.next.peer), hello)
        if stream is not None:
            stream.owner = session
            self.out[session.key] = stream
        self.carry_out(session, session.linked(link.epoch, is_linked=stream is not None))

    def send_next(self, session: HopSession, send: SendNext) -> None:
        stream = self.out.get(session.key)
        if stream is None or send.epoch != session.epoch:
            return
        if isinstance(send.message, Step | StateStep) and self.world.chance(self.world.refusals):
            self.world.counts["overflows"] += 1
            self.carry_out(session, session.overflowed(send.message))
        else:
            stream.frames.append((send.message, send.payload() if send.is_logged else send.payload))

    def finish(self, index: int) -> None:
        session, work = self.running.pop(index)
        if self.table.get(session.key) is not session:
            return
        if self.world.chance(self.world.refusals / 2):
            self.world.counts["failed"] += 1
            code: ErrorCode = "busy" if self.world.chance(0.5) else "internal"
            self.carry_out(session, session.failed(code, "out of luck"))
            return
        granted = self.rooms.granted[session.key]
        assert work.position + work.num_tokens <= granted, "a step ran beyond what was granted"
        values = work.payload
        for block in range(session.span.start, session.span.end):
            values = run_block(block, self.rooms.kv[session.key][block], work.position, values)
        self.carry_out(session, session.executed(values))


class WorldLike:
    """What a server needs of the world (the simulator implements it)."""

    now: float
    refusals: float
    counts: Counter[str]

    def on_forgot(self, server: Server, session: HopSession, held: int, epoch: int) -> None:
        raise NotImplementedError

    def copy_pages(self, server: Server, order: CopyPages) -> None:
        raise NotImplementedError

    def chance(self, probability: float) -> bool:
        raise NotImplementedError

    def tell_client(self, server: Server, message: Message, stage: int = 0) -> None:
        raise NotImplementedError

    def on_refused(self, stream: Stream) -> None:
        raise NotImplementedError

    def open_stream(self, source: PeerId, target: PeerId, hello: Hello) -> Stream | None:
        raise NotImplementedError

    def attach(self, outbox: Stream, request: Stream) -> None:
        raise NotImplementedError
