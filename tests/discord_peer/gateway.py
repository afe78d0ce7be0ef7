"""The gateway: sessions over websockets that hear events, and what is replayed to those that resume."""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.discord_peer.intents import KNOWN_BITS, PRIVILEGED, Intent, application_flags
from tests.discord_peer.payloads import Listener, guild_create_json, member_json, own_account_json
from tests.discord_peer.permissions import Permission
from tests.discord_peer.things import Json
from tests.discord_peer.world import Event, World

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, RESUME = 0, 1, 2, 3, 6
RECONNECT, REQUEST_MEMBERS, INVALID_SESSION, HELLO, HEARTBEAT_ACK = 7, 8, 9, 10, 11
UNKNOWN_OPCODE, DECODE_ERROR, NOT_AUTHENTICATED, BAD_TOKEN, AUTHENTICATED_TWICE = 4001, 4002, 4003, 4004, 4005
TOO_FAST, INVALID_INTENTS, DISALLOWED_INTENTS = 4008, 4013, 4014
HEARTBEAT_MS = 41_250
MAX_SENT_PER_MINUTE = 120
KEPT_EVENTS = 1_000
SESSION_S = 180.0
MESSAGE_EVENTS = ("MESSAGE_CREATE", "MESSAGE_UPDATE")


@dataclass(eq=False)
class Session:
    """What IDENTIFY began. It outlives its socket, and keeps events for when it is resumed."""

    id: str
    intents: Intent
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=KEPT_EVENTS))
    sequence: int = 0
    socket: web.WebSocketResponse | None = None
    left_s: float = 0.0
    outbox: "asyncio.Queue[Json]" = field(default_factory=lambda: asyncio.Queue(KEPT_EVENTS))

    def dispatch(self, name: str, payload: Json) -> None:
        """Number an event, keep it, and send it if somebody listens."""
        self.sequence += 1
        event: Json = {"op": DISPATCH, "t": name, "s": self.sequence, "d": payload}
        self.events.append(event)
        if self.socket is not None:
            self.outbox.put_nowait(event)


class Gateway:
    """All sessions of the bot."""

    def __init__(self, world: World, check_message: Callable[[str, Json], None]) -> None:
        self._world = world
        self._check_message = check_message
        self._sessions: dict[str, Session] = {}
        self.url = ""
        self.open = asyncio.Event()
        """Cleared while nobody gets in: sockets then wait for their HELLO."""
        self.open.set()
        self.identified = 0
        self.resumed = 0
        self.presences: list[Json] = []

    @property
    def connected(self) -> list[Session]:
        return [session for session in self._sessions.values() if session.socket is not None]

    def tell(self, event: Event) -> None:
        """Pass an event on to the sessions that asked for its kind and may see where it happened."""
        bot = self._world.bot
        if event.channel and not event.channel.permissions_of(bot) & Permission.VIEW_CHANNEL:
            return
        for session in self._sessions.values():
            if event.needs & session.intents or event.needs is Intent.NONE:
                payload = event.payload(Listener(bot, session.intents))
                session.dispatch(event.name, payload)
                if event.name in MESSAGE_EVENTS:
                    self._check_message(event.name, payload)

    async def drop(self, resume: bool, code: int = 4000) -> None:
        """Close all sockets; without `resume` the sessions are forgotten as well."""
        dropped = self.connected
        if not resume:
            self._sessions.clear()
        for session in dropped:
            socket, session.socket = session.socket, None
            session.left_s = self._world.clock.now_s()
            if socket is not None:
                await socket.close(code=code)

    async def ask_to_reconnect(self) -> None:
        """What Discord does a few times a day: ask every client to come again."""
        for session in self.connected:
            session.outbox.put_nowait({"op": RECONNECT, "d": None})

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """One socket, from its HELLO to its end."""
        socket = web.WebSocketResponse(max_msg_size=4096 * 16, heartbeat=None)
        await socket.prepare(request)
        await self.open.wait()
        if socket.closed:
            return socket
        await socket.send_json({"op": HELLO, "d": {"heartbeat_interval": HEARTBEAT_MS}})
        connection = Connection(self, self._world, socket)
        try:
            async with asyncio.TaskGroup() as group:
                connection.group = group
                await connection.read()
                connection.stop_writing()
        finally:
            connection.leave()
        return socket

    def identify(self, intents: Intent) -> Session:
        self.identified += 1
        session = Session(f"session-{self._world.ids.next()}", intents)
        self._sessions[session.id] = session
        return session

    def find(self, session_id: str, sequence: int) -> Session | None:
        """A session that can be resumed: known, not long gone, and with all events after `sequence`."""
        session = self._sessions.get(session_id)
        if session is None or self._world.clock.now_s() - (session.left_s or 1e12) > SESSION_S:
            return None
        oldest = session.events[0]["s"] if session.events else 1
        return session if oldest - 1 <= sequence <= session.sequence else None

    def forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)


class Connection:
    """One socket and, after IDENTIFY or RESUME, its session."""

    def __init__(self, gateway: Gateway, world: World, socket: web.WebSocketResponse) -> None:
        self._gateway = gateway
        self._world = world
        self._socket = socket
        self._session: Session | None = None
        self._writer: asyncio.Task[None] | None = None
        self._sent_s: deque[float] = deque(maxlen=MAX_SENT_PER_MINUTE)
        self._hung_up = False
        self.group: asyncio.TaskGroup

    async def read(self) -> None:
        """Obey frames until the socket closes."""
        async for frame in self._socket:
            if frame.type is not WSMsgType.TEXT:
                return
            try:
                said = json.loads(frame.data)
                opcode, payload = said["op"], said.get("d")
            except (ValueError, KeyError, TypeError):
                await self._hang_up(DECODE_ERROR)
                return
            if self._is_too_fast():
                await self._hang_up(TOO_FAST)
                return
            await self._obey(opcode, payload)

    def stop_writing(self) -> None:
        if self._writer is not None:
            self._writer.cancel()

    def leave(self) -> None:
        """A goodbye (1000, 1001) ends the session; every other end leaves it to be resumed."""
        session = self._session
        if session is None or session.socket is not self._socket:
            return
        session.socket = None
        session.left_s = self._world.clock.now_s()
        if not self._hung_up and self._socket.close_code in (1000, 1001):
            self._gateway.forget(session)

    async def _hang_up(self, code: int) -> None:
        self._hung_up = True
        await self._socket.close(code=code)

    def _is_too_fast(self) -> bool:
        now_s = self._world.clock.now_s()
        is_full = len(self._sent_s) == MAX_SENT_PER_MINUTE and now_s - self._sent_s[0] < 60
        self._sent_s.append(now_s)
        return is_full

    async def _obey(self, opcode: Any, payload: Any) -> None:
        if opcode == HEARTBEAT:
            await self._socket.send_json({"op": HEARTBEAT_ACK})
        elif opcode == IDENTIFY:
            await self._identify(payload)
        elif opcode == RESUME:
            await self._resume(payload)
        elif self._session is None:
            await self._hang_up(NOT_AUTHENTICATED)
        elif opcode == PRESENCE:
            self._gateway.presences.append(payload)
        elif opcode == REQUEST_MEMBERS:
            self._send_members(self._session, payload)
        else:
            await self._hang_up(UNKNOWN_OPCODE)

    async def _identify(self, payload: Json) -> None:
        refused = self._refused(payload)
        if refused:
            await self._hang_up(refused)
            return
        session = self._gateway.identify(Intent(payload["intents"]))
        self._attach(session)
        world = self._world
        mine = [guild for guild in world.guilds.values() if world.bot.id in guild.members]
        session.dispatch("READY", self._ready(session, [str(guild.id) for guild in mine]))
        for guild in mine:
            session.dispatch("GUILD_CREATE", guild_create_json(guild, Listener(world.bot, session.intents)))

    def _refused(self, payload: Json) -> int:
        """The code to close with, 0 if the bot may come in."""
        if self._session is not None:
            return AUTHENTICATED_TWICE
        if payload.get("token") != self._world.token:
            return BAD_TOKEN
        intents = payload.get("intents")
        if not isinstance(intents, int) or not 0 <= intents <= KNOWN_BITS:
            return INVALID_INTENTS
        return DISALLOWED_INTENTS if intents & PRIVILEGED & ~self._world.approved else 0

    def _ready(self, session: Session, guild_ids: list[str]) -> Json:
        bot = self._world.bot
        return {
            "v": 10,
            "user": own_account_json(bot),
            "guilds": [{"id": guild_id, "unavailable": True} for guild_id in guild_ids],
            "session_id": session.id,
            "resume_gateway_url": self._gateway.url,
            "shard": [0, 1],
            "application": {"id": str(bot.id), "flags": application_flags(self._world.approved)},
            "private_channels": [],
        }

    async def _resume(self, payload: Json) -> None:
        if payload.get("token") != self._world.token:
            await self._hang_up(BAD_TOKEN)
            return
        session = self._gateway.find(str(payload.get("session_id")), int(payload.get("seq") or 0))
        if session is None:
            await self._socket.send_json({"op": INVALID_SESSION, "d": False})
            return
        missed = [event for event in session.events if event["s"] > payload["seq"]]
        self._gateway.resumed += 1
        self._attach(session)
        for event in missed:
            session.outbox.put_nowait(event)
        session.dispatch("RESUMED", {"_trace": []})

    def _attach(self, session: Session) -> None:
        self._session = session
        session.socket = self._socket
        session.left_s = 0.0
        session.outbox = asyncio.Queue(2 * KEPT_EVENTS)
        self._writer = self.group.create_task(self._write(session.outbox))

    async def _write(self, outbox: "asyncio.Queue[Json]") -> None:
        while not self._socket.closed:
            event = await outbox.get()
            try:
                await self._socket.send_json(event)
            except ConnectionError:  # it closes; what was not sent is replayed
                return

    def _send_members(self, session: Session, payload: Json) -> None:
        guild = self._world.guilds.get(int(payload["guild_id"]))
        if guild is None or not session.intents & Intent.GUILD_MEMBERS:
            return
        chunk: Json = {
            "guild_id": str(guild.id),
            "members": [member_json(member) for member in guild.members.values()],
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": [],
            "nonce": payload.get("nonce"),
        }
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk)
