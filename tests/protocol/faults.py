"""Everything that chance may do to the simulated servers and to the streams between them."""

from typing import Any

from swarm.session import Phase
from tests.protocol.draining import Draining
from tests.protocol.world import CLIENT, Server, Stream

FAULTS = (
    "kill",
    "freeze",
    "freeze",
    "revive",
    "suspect",
    "suspect",
    "break_link",
    "drop_cache",
    "trim",
    "drop_log",
    "reopen_control",
    "drain",
)
CHANCE = 0.03
CHANCE_WHILE_IN_TROUBLE = 0.15


class Faults(Draining):
    """Strikes servers that some session uses, most eagerly while a lost cache is being filled
    again or a step was refused."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.faults_left = self.random.randint(0, 8)

    def _is_struck(self) -> bool:
        if not self.faults_left:
            return False
        trouble = any(talk.session.phase in (Phase.REPLAYING, Phase.WAITING) for talk in self.talks)
        return self.chance(CHANCE_WHILE_IN_TROUBLE if trouble else CHANCE)

    def _fault(self) -> None:
        self.faults_left -= 1
        routed = sorted({hop.peer_id for talk in self.talks for hop in talk.session.route})
        victims = [self.servers[peer] for peer in routed if not self.servers[peer].is_dead]
        if victims:
            kind = self.random.choice(FAULTS)
            self.counts[kind] += 1
            if any(talk.session.phase is Phase.REPLAYING for talk in self.talks):
                self.counts["struck_replays"] += 1
            getattr(self, f"_{kind}")(self.random.choice(victims))

    def _kill(self, victim: Server) -> None:
        victim.is_dead = True
        self.controls.pop(victim.peer, None)
        for stream in self.streams:
            if stream.target == victim.peer and stream.owner is not None:
                self.later.append(("link_lost", stream))
            if stream.source == victim.peer and stream.target != CLIENT:
                stream.is_closed = True
        self._suspect(victim)

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

    def _break_link(self, victim: Server) -> None:
        for stream in self.streams:
            if stream.source == victim.peer and stream.owner is not None and not stream.is_closed:
                stream.is_closed = True
                stream.frames.clear()
                self.later.append(("link_lost", stream))

    def _drop_cache(self, victim: Server) -> None:
        """The server needs its pages for others."""
        for session in victim.table.sessions():
            if session.is_idle:
                session.drop_cache()
                victim.rooms.granted[session.key] = 0
                for kv in victim.rooms.kv[session.key].values():
                    kv.clear()

    def _trim(self, victim: Server) -> None:
        """The server takes back room that idle sessions were granted and do not use."""
        for session in victim.table.sessions():
            if session.is_idle:
                victim.rooms.granted[session.key] = max(session.trim(), session.position)

    def _drop_log(self, victim: Server) -> None:
        for session in victim.table.sessions():
            for _ in range(self.random.randint(1, 4)):
                if session.log.start < session.log.end:
                    session.log.drop_oldest()

    def _reopen_control(self, victim: Server) -> None:
        """The client dials again; what it sent on the old stream still arrives, some time, or never."""
        control = self.controls.pop(victim.peer, None)
        if control is None:
            return
        if self.chance(0.7):
            self.old_controls.append(control[0])
        if self.chance(0.7):
            self.later.append(("detach", (victim, control[0])))
        self._suspect(victim)

    def _late_detach(self, what: tuple[Server, Stream]) -> None:
        server, connection = what
        server.table.detach(connection, self.now)
        if self.chance(0.3):
            self.counts["expired"] += len(server.table.expire(self.now + 1e5))

    def _late_link_lost(self, stream: Stream) -> None:
        server = self.servers[stream.source]
        owner: Any = stream.owner
        session = server.table.get(owner.key)
        if not server.is_dead and session is not None and session is owner:
            server.carry_out(session, session.link_lost(stream.epoch))

    def _suspect_frozen(self) -> Server | None:
        """Nothing else can happen: the heartbeats of a frozen hop have been missed by now."""
        routed = sorted({hop.peer_id for talk in self.talks for hop in talk.session.route})
        for server in self.servers.values():
            if server.is_frozen and not server.is_dead and server.peer in routed:
                if self.chance(0.5):
                    server.is_frozen = False
                return server
        return None
