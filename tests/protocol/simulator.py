"""Chance drives one or two sessions of a client through failing servers, and checks every output.

`run(seed)` returns what happened. A schedule that never ends is `stuck`; an output that the unsplit model
would not give is `diverged`. To see a failing one again: `python -m tests.protocol.simulator SEED`.
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from server.session_table import Refused
from swarm.history import History
from swarm.outbox import Window
from swarm.session import ClientSession, Phase, reattach
from swarm.session_effects import (
    Broken,
    Deliver,
    NeedRoute,
    OpenChain,
    RetryLater,
    SendState,
    SendStep,
    TellHop,
)
from swarm.session_effects import Effect as ClientEffect
from swarm.wire.blocks import Hop, PeerId, Route, SessionId, Span
from swarm.wire.messages import BindAck, Credit, Hello, Message, Ready, SessionError, StepResult
from swarm.wire.tags import TagChain
from tests.protocol.world import CLIENT, FINGERPRINT, NUM_BLOCKS, Server, Stream, WorldLike, reference

MAX_EVENTS = 6000


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
    is_finished: bool = False


class Simulator(WorldLike):
    """One schedule."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.outcome = Outcome(seed)
        self.now = 0.0
        self.servers: dict[PeerId, Server] = {}
        self.streams: list[Stream] = []
        self.controls: dict[PeerId, tuple[Stream, Stream]] = {}
        self.later: list[tuple[str, Any]] = []
        self.faults = self.random.randint(0, 8)
        self.talks: list[Talk] = []
        self.log_bytes = self.random.choice([10_000, 10_000, 10_000, 200])
        self.capacity = self.random.choice([10_000, 10_000, 120])
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
        if stream.owner is not None:
            self.later.append(("link_lost", stream))
        else:
            self.later.append(("client_stream_refused", stream))

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

    # --- servers ------------------------------------------------------------------------------------

    def _living(self) -> list[Server]:
        return [server for server in self.servers.values() if not server.is_dead]

    def _covers(self, servers: list[Server]) -> bool:
        return all(any(s.span.start <= b < s.span.end for s in servers) for b in range(NUM_BLOCKS))

    def _add_server(self) -> None:
        start, end = self.random.choice([(0, 6), (0, 3), (3, 6), (0, 2), (2, 4), (2, 6), (4, 6)])
        peer = PeerId(f"s{len(self.servers)}")
        self.servers[peer] = Server(self, peer, Span(start, end), self.capacity, self.log_bytes)

    def _route(self, avoiding: frozenset[PeerId], present: Route) -> Route:
        usable = [s for s in self._living() if s.peer not in avoiding and not s.is_frozen]
        while not self._covers(usable):
            self._add_server()
            usable.append(self.servers[PeerId(f"s{len(self.servers) - 1}")])
        hops: list[Hop] = []
        block = 0
        while block < NUM_BLOCKS:
            kept = [h for h in present if h.span.start == block and any(s.peer == h.peer_id for s in usable)]
            if kept and self.chance(0.9) and all(h.peer_id != kept[0].peer_id for h in hops):
                hops.append(kept[0])
                block = kept[0].span.end
                continue
            used = {hop.peer_id for hop in hops}
            choices = [s for s in usable if s.span.start <= block < s.span.end and s.peer not in used]
            if not choices:
                self._add_server()
                fresh = self.servers[PeerId(f"s{len(self.servers) - 1}")]
                usable.append(fresh)
                continue
            server = self.random.choice(choices)
            end = server.span.end if self.chance(0.8) else self.random.randint(block + 1, server.span.end)
            hops.append(Hop(server.peer, Span(block, end)))
            block = end
        return tuple(hops)

    # --- the client's driver ---------------------------------------------------------------------

    def _control(self, peer: PeerId) -> tuple[Stream, Stream] | None:
        if self.servers[peer].is_dead:
            return None
        if peer not in self.controls:
            self.controls[peer] = (Stream(CLIENT, peer), Stream(peer, CLIENT))
        return self.controls[peer]

    def carry_out(self, talk: Talk, effects: list[ClientEffect]) -> None:
        session = talk.session
        for effect in effects:
            if isinstance(effect, TellHop):
                self._tell_hop(talk, session.route[effect.stage].peer_id, effect.message)
            elif isinstance(effect, OpenChain):
                self._open_chain(talk, effect)
            elif isinstance(effect, SendStep | SendState):
                step = effect.step
                payload = talk.labels[step.position : step.position + step.num_tokens]
                stream = talk.streams.get(0)
                if stream is not None and not stream.is_closed:
                    stream.frames.append((step, payload))
            elif isinstance(effect, Deliver):
                self._check(talk, effect)
            elif isinstance(effect, NeedRoute):
                self.outcome.counts["reroutes"] += 1
                self.later.append(("route", (talk, effect, session.epoch)))
            elif isinstance(effect, RetryLater):
                self.outcome.counts["busy"] += 1
                self.later.append(("retry", (talk, session.epoch, effect.attempt)))
            elif isinstance(effect, Broken):
                self.outcome.stuck = f"broken: {effect}"

    def _tell_hop(self, talk: Talk, peer: PeerId, message: Message) -> None:
        control = self._control(peer)
        if control is None:
            self.later.append(("lost", (talk, peer)))
        else:
            control[0].frames.append((message, None))

    def _open_chain(self, talk: Talk, effect: OpenChain) -> None:
        session = talk.session
        for stream in talk.streams.values():
            stream.is_closed = True
        talk.streams = {}
        last = len(session.route) - 1
        for stage in sorted(effect.relays | {last}):
            self._open_client_stream(talk, stage, "output")
        for stage in sorted({0} | {relay + 1 for relay in effect.relays}):
            stream = self._open_client_stream(talk, stage, "input")
            if stream is not None:
                talk.streams[stage] = stream

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
        outputs = reference(talk.labels[: position + num_tokens])
        right = outputs[len(outputs) - rows :] if rows else []
        if deliver.payload != right:
            self.outcome.diverged = f"step {deliver.number} at {position}: {deliver.payload} != {right}"
        self.outcome.counts["delivered"] += 1

    # --- the user ------------------------------------------------------------------------------------

    def _new_talk(self) -> Talk:
        session_id = SessionId(self.random.randbytes(16))
        history = History(TagChain(self.random.randbytes(16)))
        session = ClientSession(session_id, CLIENT, FINGERPRINT, history)
        session.outbox.window = Window(steps=self.random.choice([1, 4]), tokens=64)
        talk = Talk(session, num_operations=self.random.randint(4, 18))
        self.talks.append(talk)
        self.carry_out(talk, session.bind(self._route(frozenset(), ())))
        return talk

    def _user_acts(self, talk: Talk) -> None:
        talk.num_operations -= 1
        session, kind = talk.session, self.random.random()
        if kind < 0.25 and session.position:
            self._roll_back(talk, max(0, session.position - self.random.choice([1, 1, 2, 3, 8])))
        elif kind < 0.32 and session.commit and len(self.talks) < 3:
            self._fork(talk)
        elif kind < 0.36 and not len(session.outbox):
            self._restart(talk)
        else:
            self._step(talk)

    def _step(self, talk: Talk) -> None:
        num_tokens = self.random.choice([0, 1, 1, 1, 3, 7])
        labels = [self.random.getrandbits(40) for _ in range(num_tokens)]
        rows = self.random.choice([0, min(1, num_tokens), num_tokens])
        position = talk.session.position
        talk.labels += labels
        number, effects = talk.session.step(labels, rows)
        talk.expected[number] = (position, num_tokens, rows)
        self.carry_out(talk, effects)

    def _roll_back(self, talk: Talk, position: int) -> None:
        inside = [at for at, n, _ in talk.expected.values() if at < position < at + n]
        position = inside[0] if inside else position
        self.outcome.counts["rollbacks"] += 1
        effects = talk.session.rollback(position)
        del talk.labels[position:]
        talk.expected = {k: v for k, v in talk.expected.items() if v[0] + v[1] <= position}
        self.carry_out(talk, effects)

    def _fork(self, talk: Talk) -> None:
        position = self.random.randint(0, talk.session.commit)
        child = talk.session.fork(SessionId(self.random.randbytes(16)), position)
        self.outcome.counts["forks"] += 1
        other = Talk(child, talk.labels[:position], num_operations=self.random.randint(2, 5))
        self.talks.append(other)
        route = talk.session.route if self.chance(0.9) else self._route(frozenset(), ())
        self.carry_out(other, child.bind(route))

    def _restart(self, talk: Talk) -> None:
        """The client's process dies and comes back with its ticket."""
        self.outcome.counts["restarts"] += 1
        old = talk.session
        del talk.labels[old.commit :]
        talk.session = reattach(old.ticket(), talk.labels, CLIENT, FINGERPRINT)
        for stream in talk.streams.values():
            stream.is_closed = True
        talk.streams, talk.expected = {}, {}
        self.carry_out(talk, talk.session.bind(self._route(frozenset(), old.route)))

    # --- chance --------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Draw events until the users are content."""
        self._new_talk()
        while not (self.outcome.stuck or self.outcome.diverged or self._is_over()):
            self.outcome.events += 1
            self.now += 0.001
            event = self._draw()
            if event is None or self.outcome.events > MAX_EVENTS:
                self.outcome.stuck = "nothing happens any more" if event is None else "no end in sight"
                break
            event()
        if not (self.outcome.stuck or self.outcome.diverged):
            self._check_books()
        return self.outcome

    def _is_over(self) -> bool:
        return all(not talk.num_operations and not len(talk.session.outbox) for talk in self.talks)

    def _draw(self) -> Any:
        if self.faults and self.chance(0.03):
            self.faults -= 1
            return self._fault
        choices = [*self._network_events(), *self._computations()]
        choices += [lambda index=i: self._later(index) for i in self._due()]
        for talk in self.talks:
            if talk.num_operations and len(talk.session.outbox) < 4:
                choices.append(lambda talk=talk: self._user_acts(talk))
        return self.random.choice(choices) if choices else self._suspect_frozen()

    def _network_events(self) -> list[Any]:
        choices: list[Any] = []
        for stream in self.streams:
            if stream.frames and self._can_deliver(stream):
                choices.append(lambda stream=stream: self._deliver(stream))
        for peer, (there, back) in self.controls.items():
            server = self.servers[peer]
            if there.frames and not server.is_frozen:
                choices.append(lambda server=server, there=there: self._to_server(server, there))
            if back.frames:
                choices.append(lambda server=server, back=back: self._to_client(server, back))
        return choices

    def _computations(self) -> list[Any]:
        choices: list[Any] = []
        for server in self.servers.values():
            if server.running and not server.is_frozen and not server.is_dead:
                index = self._oldest_per_session(server)
                choices.append(lambda server=server, index=index: server.finish(index))
        return choices

    def _oldest_per_session(self, server: Server) -> int:
        seen: list[object] = []
        firsts = []
        for index, (session, _) in enumerate(server.running):
            if not any(session is other for other in seen):
                seen.append(session)
                firsts.append(index)
        return self.random.choice(firsts)

    def _can_deliver(self, stream: Stream) -> bool:
        if stream.target == CLIENT:
            return not stream.is_closed
        server = self.servers[stream.target]
        return stream.session is not None and not server.is_frozen and not server.is_dead

    def _due(self) -> list[int]:
        """What may happen next of what must happen some time; a frozen server admits nothing."""
        return [
            index
            for index, (kind, what) in enumerate(self.later)
            if kind != "admit" or not self.servers[what.target].is_frozen
        ]

    def _later(self, index: int) -> None:
        kind, what = self.later.pop(index)
        getattr(self, f"_late_{kind}")(what)

    def _late_admit(self, stream: Stream) -> None:
        if not self.servers[stream.target].is_dead:
            self.servers[stream.target].admit(stream)

    def _late_lost(self, what: tuple[Talk, PeerId]) -> None:
        talk, peer = what
        self.carry_out(talk, talk.session.on_lost(frozenset([peer]), "lost"))

    def _late_route(self, what: tuple[Talk, NeedRoute, int]) -> None:
        talk, need, epoch = what
        if talk.session.epoch == epoch and talk.session.phase is not Phase.CLOSED:
            present = tuple(hop for hop in talk.session.route if hop.peer_id not in need.lost)
            self.carry_out(talk, talk.session.bind(self._route(need.lost, present)))

    def _late_retry(self, what: tuple[Talk, int, int]) -> None:
        talk, epoch, attempt = what
        if talk.session.epoch == epoch:
            if self.chance(0.3) or self.capacity < 1000:
                self._add_room(talk)
            self.carry_out(talk, talk.session.retry(attempt))

    def _late_link_lost(self, stream: Stream) -> None:
        server = self.servers[stream.source]
        if not server.is_dead:
            owner: Any = stream.owner
            server.carry_out(owner, owner.link_lost(stream.epoch))

    def _add_room(self, talk: Talk) -> None:
        for hop in talk.session.route:
            self.servers[hop.peer_id].rooms.capacity += 50

    def _late_client_stream_refused(self, stream: Stream) -> None:
        for talk in self.talks:
            if talk.session.session_id == stream.hello.session and talk.session.epoch == stream.hello.epoch:  # type: ignore[union-attr]
                self.carry_out(talk, talk.session.on_lost(frozenset([stream.target]), "refused"))

    def _deliver(self, stream: Stream) -> None:
        message, payload = stream.frames.popleft()
        if stream.target != CLIENT:
            self.servers[stream.target].on_chain(stream, message, payload)
            return
        talk = next((t for t in self.talks if t.session.session_id == stream.hello.session), None)  # type: ignore[union-attr]
        if talk is None or stream.hello.epoch != talk.session.epoch:  # type: ignore[union-attr]
            return
        if isinstance(message, StepResult):
            self.carry_out(talk, talk.session.on_result(message, payload))
        else:
            self.outcome.counts["relayed"] += 1
            onward = talk.streams.get(stream.hello.stage + 1)  # type: ignore[union-attr]
            if onward is not None:
                onward.frames.append((message, payload))

    def _to_server(self, server: Server, stream: Stream) -> None:
        message, _ = stream.frames.popleft()
        server.on_control(message, stream)

    def _to_client(self, server: Server, stream: Stream) -> None:
        message, stage = stream.frames.popleft()
        talk = next((t for t in self.talks if t.session.session_id == message.session), None)  # type: ignore[attr-defined]
        if talk is None:
            return
        session = talk.session
        if isinstance(message, BindAck):
            effects = session.on_ack(message)
        elif isinstance(message, Ready):
            effects = session.on_ready(message)
        elif isinstance(message, Credit):
            effects = session.on_credit(message)
        elif isinstance(message, SessionError):
            self.outcome.counts[f"error_{message.code}"] += 1
            effects = session.on_error(message)
        else:
            raise AssertionError(message)
        self.carry_out(talk, effects)

    # --- faults ------------------------------------------------------------------------------------

    def _fault(self) -> None:
        routed = sorted({hop.peer_id for talk in self.talks for hop in talk.session.route})
        victims = [self.servers[peer] for peer in routed if not self.servers[peer].is_dead]
        if not victims:
            return
        victim = self.random.choice(victims)
        kind = self.random.choice(
            ["kill", "freeze", "suspect", "suspect", "break_link", "drop_cache", "revive"]
        )
        self.outcome.counts[kind] += 1
        getattr(self, f"_{kind}")(victim)

    def _kill(self, victim: Server) -> None:
        victim.is_dead = True
        self.outcome.counts["recomputed"] += self._recomputed(victim)
        self.controls.pop(victim.peer, None)
        for stream in self.streams:
            if stream.target == victim.peer and stream.owner is not None:
                self.later.append(("link_lost", stream))
            if stream.source == victim.peer and stream.target != CLIENT:
                stream.is_closed = True
        for talk in self.talks:
            self.later.append(("lost", (talk, victim.peer)))

    def _freeze(self, victim: Server) -> None:
        victim.is_frozen = True
        if self.chance(0.5):
            self.later.append(("lost", (self.random.choice(self.talks), victim.peer)))

    def _revive(self, _: Server) -> None:
        for server in self.servers.values():
            server.is_frozen = False

    def _suspect(self, victim: Server) -> None:
        """A false alarm: the server is healthy and stays in the swarm, with its cache."""
        for talk in self.talks:
            self.later.append(("lost", (talk, victim.peer)))

    def _suspect_frozen(self) -> Any:
        frozen = [s for s in self.servers.values() if s.is_frozen and not s.is_dead]
        routed = sorted({hop.peer_id for talk in self.talks for hop in talk.session.route})
        for server in frozen:
            if server.peer in routed:
                if self.chance(0.5):
                    server.is_frozen = False
                return lambda server=server: self._suspect(server)
        return None

    def _break_link(self, victim: Server) -> None:
        for stream in self.streams:
            if stream.source == victim.peer and stream.owner is not None and not stream.is_closed:
                stream.is_closed = True
                stream.frames.clear()
                self.later.append(("link_lost", stream))

    def _drop_cache(self, victim: Server) -> None:
        for session in victim.table.sessions():
            if session.is_idle:
                session.drop_cache()
                for kv in victim.rooms.kv[session.key].values():
                    kv.clear()

    # --- books -------------------------------------------------------------------------------------

    def _recomputed(self, server: Server) -> int:
        return sum(session.counters.recomputed_below_commit for session in server.table.sessions())

    def _check_books(self) -> None:
        for server in self._living():
            self.outcome.counts["recomputed"] += self._recomputed(server)
            server.is_frozen = False
        for talk in self.talks:
            talk.session.close()
            for server in self._living():
                server.table.close(CLIENT, talk.session.session_id)
        left = sum(sum(server.rooms.granted.values()) for server in self._living())
        logged = sum(server.budget.used_bytes for server in self._living())
        if left or logged:
            self.outcome.stuck = f"{left} tokens and {logged} bytes of log were not given back"
        if (
            self.outcome.counts["recomputed"]
            and self.log_bytes > 1000
            and not self.outcome.counts["drop_cache"]
        ):
            self.outcome.diverged = "a survivor recomputed tokens below the commit"


def run(seed: int) -> Outcome:
    """Run one schedule."""
    try:
        return Simulator(seed).run()
    except (AssertionError, Refused) as error:
        raise AssertionError(f"seed {seed}: {error!r}") from error


if __name__ == "__main__":
    first, last = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(sys.argv[1]) + 1
    total: Counter[str] = Counter()
    bad = 0
    for number in range(first, last):
        outcome = run(number)
        total.update(outcome.counts)
        total["events"] += outcome.events
        if outcome.stuck or outcome.diverged:
            bad += 1
            if bad < 10:
                sys.stdout.write(f"{outcome}\n")
    sys.stdout.write(f"{last - first} schedules, {bad} bad, {dict(total)}\n")
