"""The client's end of the simulated world: a driver for the shipped session, and the servers it finds."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from server.sessions import HopSession
from swarm.session import ClientSession, Phase
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
from swarm.wire.blocks import Hop, PeerId, Route, Span
from swarm.wire.messages import BindAck, Credit, Hello, Message, Ready, SessionError, StepResult
from tests.protocol.world import (
    CLIENT,
    NUM_BLOCKS,
    Server,
    Stream,
    WorldLike,
    run_unsplit,
)

SPANS = [(0, 6), (0, 3), (3, 6), (0, 2), (2, 4), (2, 6), (4, 6)]


@dataclass
class Outcome:
    """What one schedule came to."""

    seed: int
    stuck: str = ""
    diverged: str = ""
    events: int = 0
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(eq=False)
class Talk:
    """One session and its user: a list of operations still to do, and the truth about its history."""

    session: ClientSession
    labels: list[int] = field(default_factory=list)
    expected: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    num_operations: int = 0
    is_rollback_pending: bool = False
    settled_epoch: int = 0
    truth: list[list[int]] = field(default_factory=lambda: [[] for _ in range(NUM_BLOCKS)])


class ClientSide(WorldLike):
    """The servers that exist, one client, and its sessions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.outcome = Outcome(seed)
        self.counts = self.outcome.counts
        self.now = 0.0
        self.servers: dict[PeerId, Server] = {}
        self.streams: list[Stream] = []
        self.controls: dict[PeerId, tuple[Stream, Stream]] = {}
        self.old_controls: list[Stream] = []
        self.later: list[tuple[str, Any]] = []
        self.talks: list[Talk] = []
        self.refusals = self.random.choice([0.005, 0.005, 0.005, 0.08])
        self.log_bytes = self.random.choice([10_000, 10_000, 10_000, 200])
        self.capacity = self.random.choice([10_000, 10_000, 120, 40])
        while not self._covers(self._living()):
            self._add_server()
        self._add_server()

    # --- the world as servers see it ---------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def tell_client(self, server: Server, message: Message, stage: int = 0) -> None:
        control = self.controls.get(server.peer)
        if control is not None:
            control[1].frames.append((message, stage))

    def on_refused(self, stream: Stream) -> None:
        kind = "link_lost" if stream.owner is not None else "client_stream_refused"
        self.later.append((kind, stream))

    def open_stream(self, source: PeerId, target: PeerId, hello: Hello) -> Stream | None:
        server = self.servers.get(target)
        if server is None or server.is_dead or (source != CLIENT and self.chance(0.01)):
            return None
        stream = Stream(source, target, hello, epoch=hello.epoch)
        self.streams.append(stream)
        self.later.append(("admit", stream))
        return stream

    def attach(self, outbox: Stream, request: Stream) -> None:
        outbox.hello = request.hello
        outbox.session = request.session
        self.streams.append(outbox)

    def on_forgot(self, server: Server, session: HopSession, held: int, epoch: int) -> None:
        """A bind cut a cache below the commit: was what it gave up right, and known to be right?

        A hop learns of a rollback with the next step. If that has not come, or came under an epoch that this
        hop missed, it may know no boundary near the one where history went another way.
        """
        talk = self._talk_of(session.key.session)
        if talk is None or talk.session.epoch != session.epoch or talk.is_rollback_pending:
            return
        if epoch < talk.settled_epoch:
            return
        truth = talk.truth[session.span.start]
        kv = server.rooms.kv[session.key][session.span.start][:held]
        if kv[: session.position + 1] == truth[: session.position + 1]:
            self.counts["forgotten"] += 1

    # --- servers ------------------------------------------------------------------------------------

    def _living(self) -> list[Server]:
        return [server for server in self.servers.values() if not server.is_dead]

    def _covers(self, servers: list[Server]) -> bool:
        return all(any(s.span.start <= b < s.span.end for s in servers) for b in range(NUM_BLOCKS))

    def _add_server(self) -> Server:
        peer = PeerId(f"s{len(self.servers)}")
        span = Span(*self.random.choice(SPANS))
        self.servers[peer] = Server(self, peer, span, self.capacity, self.log_bytes)
        return self.servers[peer]

    def _route(self, avoiding: frozenset[PeerId], present: Route) -> Route:
        """A random route; it prefers hops that are bound now, and those that come back from the dead."""
        avoided = frozenset() if self.chance(0.3) else avoiding
        usable = [
            s for s in self._living() if s.peer not in avoided and not s.is_frozen and not s.table.is_draining
        ]
        while not self._covers(usable):
            usable.append(self._add_server())
        hops: list[Hop] = []
        block = 0
        while block < NUM_BLOCKS:
            hop = self._kept(block, present, usable, hops) or self._chosen(block, usable, hops)
            hops.append(hop)
            block = hop.span.end
        return tuple(hops)

    def _kept(self, block: int, present: Route, usable: list[Server], hops: list[Hop]) -> Hop | None:
        peers = {server.peer for server in usable} - {hop.peer_id for hop in hops}
        kept = [hop for hop in present if hop.span.start == block and hop.peer_id in peers]
        return kept[0] if kept and self.chance(0.9) else None

    def _chosen(self, block: int, usable: list[Server], hops: list[Hop]) -> Hop:
        used = {hop.peer_id for hop in hops}
        choices = [s for s in usable if s.span.start <= block < s.span.end and s.peer not in used]
        while not choices:
            usable.append(self._add_server())
            choices = [s for s in usable[-1:] if s.span.start <= block < s.span.end]
        server = self.random.choice(choices)
        end = server.span.end if self.chance(0.8) else self.random.randint(block + 1, server.span.end)
        return Hop(server.peer, Span(block, end))

    # --- the client's driver ---------------------------------------------------------------------

    def _talk_of(self, session_id: bytes) -> Talk | None:
        return next((talk for talk in self.talks if talk.session.session_id == session_id), None)

    def _control(self, peer: PeerId) -> tuple[Stream, Stream] | None:
        if self.servers[peer].is_dead:
            return None
        if peer not in self.controls:
            self.controls[peer] = (Stream(CLIENT, peer), Stream(peer, CLIENT))
        return self.controls[peer]

    def carry_out(self, talk: Talk, effects: list[Effect]) -> None:
        session = talk.session
        for effect in effects:
            if isinstance(effect, TellHop):
                self._tell_hop(talk, session.route[effect.stage].peer_id, effect.message)
            elif isinstance(effect, TellPeer):
                self._tell_peer(talk, effect.peer_id, effect.message)
            elif isinstance(effect, OpenChain):
                self._open_chain(talk, effect)
            elif isinstance(effect, SendStep | SendState):
                self._send(talk, effect)
            elif isinstance(effect, Deliver):
                self._check(talk, effect)
            elif isinstance(effect, NeedRoute):
                self.counts["reroutes"] += 1
                self.later.append(("route", (talk, effect, session.epoch)))
            elif isinstance(effect, RetryLater):
                self.counts["busy"] += 1
                self.later.append(("retry", (talk, session.epoch, effect.attempt)))
            elif isinstance(effect, Broken):
                self.outcome.stuck = f"broken: {effect}"

    def _tell_peer(self, talk: Talk, peer: PeerId, message: Message) -> None:
        raise NotImplementedError

    def _from_stranger(self, talk: Talk, peer: PeerId, message: Any) -> bool:
        raise NotImplementedError

    def _send(self, talk: Talk, effect: SendStep | SendState) -> None:
        step = effect.step
        payload = talk.labels[step.position : step.position + step.num_tokens]
        stream = talk.streams.get(0)
        if stream is not None and not stream.is_closed:
            stream.frames.append((step, payload))

    def _tell_hop(self, talk: Talk, peer: PeerId, message: Message) -> None:
        control = self._control(peer)
        if control is None:
            self.later.append(("lost", (talk, peer)))
        else:
            control[0].frames.append((message, None))

    def _open_chain(self, talk: Talk, effect: OpenChain) -> None:
        for stream in talk.streams.values():
            stream.is_closed = True
        talk.streams = {}
        last = len(talk.session.route) - 1
        for stage in sorted(effect.relays | {last}):
            self._open_client_stream(talk, stage, "output")
        for stage in sorted({0} | {relay + 1 for relay in effect.relays}):
            opened = self._open_client_stream(talk, stage, "input")
            if opened is not None:
                talk.streams[stage] = opened

    def _open_client_stream(self, talk: Talk, stage: int, direction: Any) -> Stream | None:
        session = talk.session
        hello = Hello(
            client=CLIENT, session=session.session_id, epoch=session.epoch, stage=stage, direction=direction
        )
        peer = session.route[stage].peer_id
        stream = self.open_stream(CLIENT, peer, hello)
        if stream is None:
            self.later.append(("lost", (talk, peer)))
        return stream

    def _check(self, talk: Talk, deliver: Deliver) -> None:
        position, num_tokens, rows = talk.expected.pop(deliver.number)
        outputs = run_unsplit(talk.truth, position, talk.labels[position : position + num_tokens])
        right = outputs[len(outputs) - rows :] if rows else []
        if deliver.payload != right:
            self.outcome.diverged = f"step {deliver.number} at {position}: {deliver.payload} != {right}"
        self.counts["delivered"] += 1
        if talk.is_rollback_pending:
            talk.is_rollback_pending, talk.settled_epoch = False, talk.session.epoch

    def _to_client(self, stream: Stream) -> None:
        message, _ = stream.frames.popleft()
        talk = self._talk_of(message.session)  # type: ignore[attr-defined]
        if talk is None or self._from_stranger(talk, stream.source, message):
            return
        session = talk.session
        if isinstance(message, BindAck):
            effects = session.on_ack(message)
        elif isinstance(message, Ready):
            effects = session.on_ready(message)
        elif isinstance(message, Credit):
            effects = session.on_credit(message)
        elif isinstance(message, SessionError):
            self.counts[f"error_{message.code}"] += 1
            effects = session.on_error(message)
        else:
            raise AssertionError(message)
        self.carry_out(talk, effects)

    def _from_chain(self, stream: Stream) -> None:
        message, payload = stream.frames.popleft()
        hello = stream.hello
        assert hello is not None
        talk = self._talk_of(hello.session)
        if talk is None or hello.epoch != talk.session.epoch:
            return
        if isinstance(message, StepResult):
            self.carry_out(talk, talk.session.on_result(message, payload))
            return
        self.counts["relayed"] += 1
        onward = talk.streams.get(hello.stage + 1)
        if onward is not None:
            onward.frames.append((message, payload))

    # --- what must happen some time ----------------------------------------------------------------

    def _late_lost(self, what: tuple[Talk, PeerId]) -> None:
        talk, peer = what
        self.carry_out(talk, talk.session.copy_failed(frozenset([peer])))
        self.carry_out(talk, talk.session.on_lost(frozenset([peer]), "lost"))

    def _late_route(self, what: tuple[Talk, NeedRoute, int]) -> None:
        talk, need, epoch = what
        if talk.session.epoch == epoch and talk.session.phase is Phase.ROUTELESS:
            present = tuple(hop for hop in talk.session.route if hop.peer_id not in need.lost)
            self.carry_out(talk, talk.session.bind(self._route(need.lost, present)))

    def _late_retry(self, what: tuple[Talk, int, int]) -> None:
        talk, epoch, attempt = what
        if talk.session.epoch == epoch and talk.session.phase is not Phase.CLOSED:
            if self.chance(0.3):
                self._add_room(talk)
            self.carry_out(talk, talk.session.retry(attempt))

    def _add_room(self, talk: Talk) -> None:
        for hop in talk.session.route:
            self.servers[hop.peer_id].rooms.capacity += 50

    def _late_client_stream_refused(self, stream: Stream) -> None:
        hello = stream.hello
        assert hello is not None
        talk = self._talk_of(hello.session)
        if talk is not None and talk.session.epoch == hello.epoch:
            self.carry_out(talk, talk.session.on_lost(frozenset([stream.target]), "refused"))
