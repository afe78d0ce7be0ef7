"""Control streams to servers: one to each server that our sessions use, shared by all of them.

A connection tells its sessions what the server says about them, and that it is lost: when the stream ends,
when no heartbeat comes, or when the server beats while its compute thread stands still over waiting work.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from swarm.background import RunningGroup, running, running_group
from swarm.errors import PeerError, PeerUnreachable
from swarm.streams import FRAME_S, FrameStream
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.frames import FROM_SERVER, MAX_CONTROL_FRAME_BYTES, BadFrame
from swarm.wire.messages import Draining, Heartbeat, Message, Ping, RecordPush, SessionProgress
from swarm.wire.protocols import CONTROL

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
MISSED_BEATS = 2
TICKS_PER_BEAT = 4
STILL_BEATS = 10
CONNECT_S = 5.0
FLUSH_S = 1.0
RTT_WEIGHT = 0.3


class Listener(Protocol):
    """A session, as a connection sees it."""

    def on_message(self, peer_id: PeerId, message: Message) -> None:
        """The server said something about this session."""

    def on_progress(self, peer_id: PeerId, progress: SessionProgress) -> None:
        """A heartbeat tells how far the session is there."""

    def on_lost(self, peer_id: PeerId, reason: str) -> None:
        """The server is gone, or must be taken for gone."""

    def on_draining(self, peer_id: PeerId) -> None:
        """The server is about to stop; it still answers."""


class Connection:
    """One control stream."""

    def __init__(self, stream: FrameStream, on_record: Callable[[PeerId, bytes], None]) -> None:
        self.peer_id = stream.remote_id
        self.rtt_s: float | None = None
        self.is_draining = False
        self.last_beat_s = time.monotonic()
        self._stream = stream
        self._on_record = on_record
        self._listeners: dict[SessionId, Listener] = {}
        self._pings: dict[int, float] = {}
        self._flushes: dict[int, asyncio.Event] = {}
        self._nonces = itertools.count(1)
        self._last_progress = (-1, 0)

    def send(self, session_id: SessionId, listener: Listener, message: Message) -> None:
        """Say something for a session, and listen for it from now on."""
        self._listeners[session_id] = listener
        if not self._stream.write_nowait(message):
            self._stream.close()

    def forget(self, session_id: SessionId) -> None:
        """The session is closed or has moved away."""
        self._listeners.pop(session_id, None)

    async def flush(self) -> None:
        """Wait until the server has read all that was said."""
        nonce = next(self._nonces)
        heard = self._flushes[nonce] = asyncio.Event()
        if self._stream.write_nowait(Ping(nonce=nonce)):
            await heard.wait()

    async def serve(self) -> str:
        """Pass on what the server says until it is lost; returns why it is."""
        try:
            async with running(self._watch_forever()):
                while True:
                    message = (await self._stream.read()).message
                    with self._stream.loop_budget.charged(FRAME_S):
                        self._hear(message)
        except BadFrame as error:
            return f"it broke the rules: {error}"
        except PeerError as error:
            return str(error)
        finally:
            self._stream.close()

    def lose(self, reason: str) -> None:
        """Tell every session that the server is lost."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.on_lost(self.peer_id, reason)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Heartbeat):
            self._hear_beat(message)
        elif isinstance(message, RecordPush):
            self._on_record(self.peer_id, message.record)
        elif isinstance(message, Draining):
            self.is_draining = True
            for session in tuple(self._listeners.values()):
                session.on_draining(self.peer_id)
        else:
            listener = self._listeners.get(SessionId(getattr(message, "session", b"")))
            if listener is not None:
                listener.on_message(self.peer_id, message)

    def _hear_beat(self, beat: Heartbeat) -> None:
        now = time.monotonic()
        self.last_beat_s = now
        if beat.nonce in self._flushes:
            self._flushes.pop(beat.nonce).set()
            return
        asked_s = self._pings.pop(beat.nonce, None)
        if asked_s is not None:
            sample = now - asked_s
            self.rtt_s = sample if self.rtt_s is None else self.rtt_s + RTT_WEIGHT * (sample - self.rtt_s)
            return
        progress, still = self._last_progress
        is_still = beat.queue_depth > 0 and beat.progress == progress
        self._last_progress = (beat.progress, still + 1 if is_still else 0)
        if self._last_progress[1] >= STILL_BEATS:
            raise PeerUnreachable(f"{self.peer_id} beats, but its computation stands still", self.peer_id)
        for session in beat.sessions:
            listener = self._listeners.get(SessionId(session.session))
            if listener is not None:
                listener.on_progress(self.peer_id, session)

    def _ping(self) -> None:
        nonce = next(self._nonces)
        self._pings[nonce] = time.monotonic()
        self._pings.pop(nonce - 8, None)
        self._stream.write_nowait(Ping(nonce=nonce))

    async def _watch_forever(self) -> None:
        """Measure the round trip, and lose patience after MISSED_BEATS heartbeats."""
        for tick in itertools.count():
            if tick % TICKS_PER_BEAT == 0:
                self._ping()
            before = time.monotonic()
            await asyncio.sleep(HEARTBEAT_S / TICKS_PER_BEAT)
            now = time.monotonic()
            if now - before > HEARTBEAT_S:
                self.last_beat_s = now  # we were the ones who slept: what came meanwhile is not read yet
            if now - self.last_beat_s > MISSED_BEATS * HEARTBEAT_S:
                raise PeerUnreachable(f"{self.peer_id} has fallen silent", self.peer_id)


class Connections:
    """All control streams of this client. See `open_connections`."""

    def __init__(
        self, transport: Transport, group: RunningGroup, on_record: Callable[[PeerId, bytes], None]
    ) -> None:
        self._transport = transport
        self._group = group
        self._on_record = on_record
        self._open: dict[PeerId, Connection] = {}
        self._opening: dict[PeerId, asyncio.Lock] = {}

    @property
    def rtts_s(self) -> dict[PeerId, float]:
        """Measured round trips to the servers that we are connected to."""
        return {peer: link.rtt_s for peer, link in self._open.items() if link.rtt_s is not None}

    def find(self, peer_id: PeerId) -> Connection | None:
        """The open connection to a server, if there is one."""
        return self._open.get(peer_id)

    async def reach(self, peer_id: PeerId, addresses: Sequence[str]) -> Connection:
        """The connection to a server, opened if need be. Raises PeerUnreachable."""
        async with self._opening.setdefault(peer_id, asyncio.Lock()):
            if peer_id not in self._open:
                self._open[peer_id] = await self._connected(peer_id, addresses)
                self._group.create_task(self._serve(self._open[peer_id]))
            return self._open[peer_id]

    async def flush(self) -> None:
        """Let farewells arrive before our p2pd ends, which drops what it holds: leases last for minutes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S), asyncio.TaskGroup() as group:
                for connection in self._open.values():
                    group.create_task(connection.flush())

    async def _connected(self, peer_id: PeerId, addresses: Sequence[str]) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_S):
                stream = await self._transport.open_stream(
                    peer_id, CONTROL, addresses, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_SERVER
                )
        except TimeoutError as error:
            raise PeerUnreachable(f"{peer_id} does not answer", peer_id) from error
        return Connection(stream, self._on_record)

    async def _serve(self, connection: Connection) -> None:
        try:
            reason = await connection.serve()
        except Exception:
            logger.exception("what %s said could not be handled", connection.peer_id)
            reason = "what it said could not be handled"
        logger.info("lost %s: %s", connection.peer_id, reason)
        if self._open.get(connection.peer_id) is connection:
            del self._open[connection.peer_id]
        connection.lose(reason)


@asynccontextmanager
async def open_connections(
    transport: Transport, on_record: Callable[[PeerId, bytes], None]
) -> AsyncIterator[Connections]:
    """Keep connections for the length of the block."""
    async with running_group() as group:
        connections = Connections(transport, group, on_record)
        try:
            yield connections
        finally:
            await connections.flush()
