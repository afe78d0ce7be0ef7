"""All sessions of a server: names, who may speak for them, leases, tombstones, limits. No I/O, no clock.

The table decides; `server/host.py` carries it out. Time is an argument (seconds of
any monotonic clock).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from server.replay_log import LogBudget
from server.session_effects import Effect, Room, SessionKey
from server.sessions import HopSession, new_session
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.bounds import ErrorCode
from swarm.wire.messages import Bind, Hello

TOMBSTONE_S = 60.0
HELD_HELLO_S = 2.0


class Refused(Exception):
    """A request that the client gets a structured error for."""

    def __init__(self, code: ErrorCode, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of this server."""

    sessions_per_peer: int = 256
    max_sessions: int = 4096
    max_lease_s: float = 7200.0
    credit_ahead: int = 256


@dataclass(slots=True)
class _Holder:
    """Which control connection speaks for a session, or since when nobody does."""

    connection: object | None
    lease_s: float
    detached_at_s: float = 0.0


class KVRooms:
    """What the table needs of the KV pool: caches by key, made, forked, given back."""

    def open(self, key: SessionKey, span: Span) -> Room:
        """Make an empty cache; the result grants room up to a position and returns what is granted."""
        raise NotImplementedError

    def fork(self, parent: SessionKey, key: SessionKey, position: int) -> Room | None:
        """Make a cache that shares the parent's first `position` tokens; None if that cannot be had."""
        raise NotImplementedError

    def close(self, key: SessionKey) -> None:
        """Give a cache back. Idempotent."""
        raise NotImplementedError


class SessionTable:
    """Sessions by (client, session, slot), as the authenticated peers may see them."""

    def __init__(
        self, span: Span, fingerprint: str, rooms: KVRooms, budget: LogBudget, limits: Limits
    ) -> None:
        self.span = span
        self.fingerprint = fingerprint
        self.is_draining = False
        self._rooms = rooms
        self._budget = budget
        self._limits = limits
        self._sessions: dict[SessionKey, HopSession] = {}
        self._holders: dict[SessionKey, _Holder] = {}
        self._tombstones: dict[SessionKey, float] = {}
        self._per_peer: Counter[PeerId] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def sessions(self) -> Iterator[HopSession]:
        """Every open session, oldest first."""
        return iter(list(self._sessions.values()))

    def held_by(self, connection: object) -> Iterator[HopSession]:
        """Sessions for which this control connection speaks."""
        return (
            self._sessions[key]
            for key, holder in list(self._holders.items())
            if holder.connection is connection
        )

    def holder(self, key: SessionKey) -> object | None:
        """Control connection that speaks for the session, None while it is detached."""
        held = self._holders.get(key)
        return held.connection if held else None

    def get(self, key: SessionKey) -> HopSession | None:
        """The open session of that name, if there is one."""
        return self._sessions.get(key)

    def find(self, key: SessionKey, now_s: float) -> HopSession:
        """Raises Refused with `expired` or `unknown_session`."""
        session = self._sessions.get(key)
        if session is not None:
            return session
        if self._tombstones.get(key, 0.0) > now_s:
            raise Refused("expired", "the session's lease ended")
        raise Refused("unknown_session", "no such session here")

    def bind(
        self, client: PeerId, bind: Bind, connection: object, now_s: float
    ) -> tuple[HopSession, list[Effect]]:
        """Open, fork or bind anew. Raises Refused; then nothing has changed."""
        key = SessionKey(client, SessionId(bind.session), bind.slot)
        span = self._check_bind(bind)
        session = self._sessions.get(key)
        if session is not None and bind.epoch <= session.epoch:
            raise Refused("fenced", "a newer holder has this session")
        if session is None or session.span != span:
            session = self._replace(key, span, bind)
        self._holders[key] = _Holder(connection, min(bind.lease_ms / 1000, self._limits.max_lease_s))
        return session, session.bind(bind)

    def _check_bind(self, bind: Bind) -> Span:
        if bind.fingerprint != self.fingerprint:
            raise Refused("wrong_model", "this server runs another model or revision")
        if bind.start >= bind.end or not self.span.contains(span := Span(bind.start, bind.end)):
            raise Refused("unsupported", f"this server has blocks {self.span}")
        if (
            bind.stage >= bind.num_stages
            or len(bind.positions) % 4
            or len(bind.positions) * 2 != len(bind.tags)
        ):
            raise Refused("bad_message", "the bind contradicts itself")
        return span

    def _replace(self, key: SessionKey, span: Span, bind: Bind) -> HopSession:
        """Open a session, in the place of one that had other blocks."""
        if self.is_draining:
            raise Refused("draining", "this server is about to stop")
        if key in self._sessions:
            self._remove(key)
        elif (
            self._per_peer[key.client] >= self._limits.sessions_per_peer
            or len(self) >= self._limits.max_sessions
        ):
            raise Refused("busy", "too many sessions", 5000)
        session = self._fork(key, span, bind) or new_session(
            key, span, self._budget, self._rooms.open(key, span)
        )
        self._sessions[key] = session
        self._per_peer[key.client] += 1
        self._tombstones.pop(key, None)
        return session

    def _fork(self, key: SessionKey, span: Span, bind: Bind) -> HopSession | None:
        """A child of the client's own session; None where the parent is not what the client thinks."""
        if bind.parent is None:
            return None
        wanted = bind.parent
        parent = self._sessions.get(SessionKey(key.client, SessionId(wanted.session), key.slot))
        if parent is None or parent.span != span or not parent.can_fork(wanted.position, wanted.tag):
            return None
        room = self._rooms.fork(parent.key, key, wanted.position)
        return None if room is None else parent.fork(key, wanted.position, wanted.tag, room)

    def admit(
        self, remote: PeerId, hello: Hello, now_s: float, *, is_copy: bool = False
    ) -> HopSession | None:
        """Decide on a new chain stream: its session, or None while the bind it belongs to has not come.

        Raises Refused. Only the predecessor that the client bound may put steps in, and only the client
        itself may take results out.
        """
        key = SessionKey(PeerId(hello.client), SessionId(hello.session), hello.slot)
        if key not in self._sessions:
            if self._tombstones.get(key, 0.0) > now_s:
                raise Refused("expired", "the session's lease ended")
            return None
        session = self._sessions[key]
        if hello.epoch < session.epoch:
            raise Refused("fenced", "this stream belongs to an older epoch")
        if hello.epoch > session.epoch:
            return None
        allowed = session.previous if hello.direction == "input" else session.key.client
        allowed = session.copy_from if is_copy else allowed
        if remote != allowed or hello.stage != session.stage:
            raise Refused("unauthorised", "this session is bound to another peer")
        return session

    def close(self, client: PeerId, session: SessionId) -> None:
        """Free every slot of the session. Idempotent."""
        for key in [key for key in self._sessions if key.client == client and key.session == session]:
            self._remove(key)

    def detach(self, connection: object, now_s: float, session: SessionId | None = None) -> list[HopSession]:
        """The connection ended, or lets go of one session: the lease begins. Returns what was let go."""
        let_go = []
        for key, holder in self._holders.items():
            if holder.connection is connection and session in (None, key.session):
                holder.connection = None
                holder.detached_at_s = now_s
                let_go.append(self._sessions[key])
        for gone in let_go:
            gone.let_go()
        return let_go

    def expire(self, now_s: float) -> list[SessionKey]:
        """End the leases that are over and forget old tombstones; returns what was ended."""
        over = [
            key
            for key, holder in self._holders.items()
            if holder.connection is None and now_s - holder.detached_at_s >= holder.lease_s
        ]
        for key in over:
            self._remove(key)
            self._tombstones[key] = now_s + TOMBSTONE_S
        self._tombstones = {key: until for key, until in self._tombstones.items() if until > now_s}
        return over

    def _remove(self, key: SessionKey) -> None:
        session = self._sessions.pop(key)
        del self._holders[key]
        self._per_peer[key.client] -= 1
        if not self._per_peer[key.client]:
            del self._per_peer[key.client]
        session.log.close()
        self._rooms.close(key)
