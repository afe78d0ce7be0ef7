"""Reading the homeserver, for ever: what happened goes to the core together with how far we have read.

A crash repeats what was not committed, and the core knows what it has seen. Gaps are filled by paging back,
and what was said before we came is not heard. A homeserver that has lost our token is read afresh, from what
is newer than what we have read.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from bot.clock import Clock
from bot.core import Core
from bot.on_matrix.fields import Object, object_of, objects_in, text_of
from bot.on_matrix.invitations import Invitations
from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.moving import Moving
from bot.on_matrix.people import server_of
from bot.on_matrix.read_up_to import ReadUpTo
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.sealing import Sealer
from bot.on_matrix.sending import Sending
from bot.on_matrix.translating import Heard, Translator
from bot.on_matrix.trying import Patience
from bot.on_matrix.unread import Unread
from bot.on_matrix.wire import LoggedOut, Malformed, room_path, with_query
from bot.words import Inbound, Refused, SendError, Unreachable
from storage.database import Database
from storage.errors import StoreBusy
from storage.inbox import get_marker
from swarm.background import RunningGroup, running_group

logger = logging.getLogger(__name__)

TOKEN, UNREAD, INVITATIONS, READ_UP_TO = MARKERS = ("sync", "unread", "invitations", "read up to")
"""What is kept in the store together with the events."""
WAIT_MS = 30_000
ANSWERS_WITHIN_S = 45.0
FIRST_WITHIN_S = 300.0
"""The first answer tells of all rooms."""
MAX_SYNC_BYTES = 256 << 20
PAGE_EVENTS = 100
MAX_PAGES = 20
FILTER = {
    "room": {
        "timeline": {"limit": PAGE_EVENTS},
        "ephemeral": {"types": []},
        "account_data": {"types": []},
    },
    "account_data": {"types": []},
    "presence": {"types": []},
}


@dataclass(frozen=True, slots=True)
class Parts:
    """What reading works with. Without `sealer` nothing that is encrypted can be read."""

    sending: Sending
    translator: Translator
    invitations: Invitations
    unread: Unread
    moving: Moving
    sealer: Sealer | None


class SyncLoop:
    """Reads everything once."""

    def __init__(self, parts: Parts, store: Database, clock: Clock) -> None:
        self._parts = parts
        self._wire = parts.sending.wire
        self._rooms: Rooms = parts.sending.rooms
        self._store = store
        self._clock = clock
        self._token: str | None = None
        self._read_up_to = ReadUpTo(clock)
        self._knows_rooms = False
        self.synced_s: float | None = None
        """When the homeserver has answered last, on the clock's `now_s`."""

    async def read_forever(self, core: Core) -> None:
        """Read, and let `core` have it. Raises LoggedOut if the homeserver does not know us any more."""
        markers = {name: await self._store.read(get_marker, PLATFORM, name) for name in MARKERS}
        self._token = markers[TOKEN]
        self._parts.unread.load(markers[UNREAD] or "")
        self._parts.invitations.load(markers[INVITATIONS] or "")
        self._read_up_to.load(markers[READ_UP_TO] or "")
        patience = Patience(self._clock, "Matrix cannot be read")
        async with running_group() as group:
            group.create_task(self._parts.invitations.carry_out_forever())
            while True:
                try:
                    await self._read_once(core, group)
                except LoggedOut:
                    raise
                except (SendError, StoreBusy) as error:
                    await patience.wait(error)
                else:
                    patience.end()

    async def _read_once(self, core: Core, group: RunningGroup) -> None:
        answer = await self._ask()
        token = text_of(answer.get("next_batch"), 10_000)
        if not token:
            raise Unreachable("the homeserver did not say how far we have read")
        if self._parts.sealer is not None:
            await self._keep_keys(self._parts.sealer, answer)
        heard = Heard()
        rooms = object_of(answer.get("rooms"))
        joined = object_of(rooms.get("join"))
        if not self._knows_rooms:
            await self._leave(core, self._rooms.others_than(joined))
        for room_id, info in joined.items():
            await self._hear_room(self._rooms.open(room_id), object_of(info), heard)
        await self._leave(core, object_of(rooms.get("leave")))
        if self._token is None:
            self._read_up_to.begin()
        has_keys = bool(object_of(answer.get("to_device")).get("events"))
        await self._parts.unread.hear(heard, may_have_keys=has_keys)
        self._parts.invitations.note_invited(object_of(rooms.get("invite")))
        self._parts.invitations.note_rooms()
        await core.receive(PLATFORM, heard.events, self._markers(token))
        self._parts.unread.commit()
        self._read_up_to.commit()
        self._token, self._knows_rooms = token, True
        self.synced_s = self._clock.now_s()
        self._parts.sending.is_ready.set()
        for inbound, sentence in heard.told:
            group.create_task(self._tell(inbound, sentence))

    async def _leave(self, core: Core, room_ids: Iterable[str]) -> None:
        """We are in these rooms no more, whoever wanted that: nobody reads there what is being written."""
        for room_id in room_ids:
            self._rooms.leave(room_id)
            await core.leave_place(PLATFORM, room_id)

    def _markers(self, token: str) -> dict[str, str]:
        return {
            TOKEN: token,
            UNREAD: self._parts.unread.dump(),
            INVITATIONS: self._parts.invitations.dump(),
            READ_UP_TO: self._read_up_to.dump(),
        }

    async def _ask(self) -> Object:
        query = {"filter": msgspec.json.encode(FILTER).decode()}
        if self._token is not None:
            query["since"] = self._token
        if self._knows_rooms:
            query["timeout"] = str(WAIT_MS)
        else:
            query["full_state"] = "true"
        within_s = ANSWERS_WITHIN_S if self._knows_rooms else FIRST_WITHIN_S
        path = with_query("/sync", query)
        try:
            return await self._wire.ask("GET", path, within_s=within_s, most_bytes=MAX_SYNC_BYTES)
        except Malformed:
            # It does not know any more how far we had read.
            self._token, self._knows_rooms = None, False
            raise

    async def _keep_keys(self, sealer: Sealer, answer: Object) -> None:
        if self._token is None:
            sealer.look_again()
        await sealer.take_in(answer)
        try:
            await sealer.keep_keys()
        except SendError as error:
            logger.warning("keys are not kept: %s; once more later", error)

    async def _hear_room(self, room: Room, info: Object, heard: Heard) -> None:
        """Take in what happened in a room."""
        timeline = object_of(info.get("timeline"))
        events = objects_in(timeline.get("events"))
        state = objects_in(object_of(info.get("state")).get("events"))
        for event in (*state, *(events if self._token is None else ())):
            if "state_key" in event:
                room.fold(event)
        said = await (self._said if self._token is not None else self._newer)(room, timeline, events)
        self._read_up_to.note(events)
        await self._parts.moving.follow(room)
        await self._parts.sending.remember_encrypted(room)
        readable = [self._parts.unread.read(room, event) for event in said]
        await self._parts.translator.hear(room, readable, heard)
        await self._parts.sending.remember_encrypted(room)
        await self._follow(room, said)

    async def _said(self, room: Room, timeline: Object, events: list[Object]) -> list[Object]:
        """What happened in a room since we have read it, or came to it; what was before is only folded."""
        if timeline.get("limited") is True and _our_join(events, self._rooms.own_id) is None:
            events = [*await self._gap(room, text_of(timeline.get("prev_batch"), 10_000)), *events]
        joined_at = _our_join(events, self._rooms.own_id)
        said = events if joined_at is None else events[joined_at + 1 :]
        for event in events[: len(events) - len(said)]:
            if "state_key" in event:
                room.fold(event)
        return said

    async def _newer(self, room: Room, timeline: Object, events: list[Object]) -> list[Object]:
        """The same where we begin afresh: what is newer than what we have read; all of it is folded."""
        is_gap = timeline.get("limited") is True and _our_join(events, self._rooms.own_id) is None
        if is_gap and self._read_up_to.newer(events):
            events = [*await self._gap(room, text_of(timeline.get("prev_batch"), 10_000)), *events]
        joined_at = _our_join(events, self._rooms.own_id)
        return self._read_up_to.newer(events if joined_at is None else events[joined_at + 1 :])

    async def _follow(self, room: Room, events: Sequence[Object]) -> None:
        """A room may have said that it goes on elsewhere; we may be there already."""
        for event in events:
            if event.get("type") == "m.room.tombstone" and event.get("state_key") == "":
                self._parts.invitations.note_successor(room, server_of(text_of(event.get("sender"))))
                await self._parts.moving.follow(room)

    async def _gap(self, room: Room, start: str) -> list[Object]:
        """What happened between the token and `start`, oldest first; of a long gap only its end.

        Without a token it ends where all is older than what we have read.
        """
        found: list[Object] = []
        until = {"to": self._token} if self._token is not None else {}
        for _ in range(MAX_PAGES):
            query = {"dir": "b", "from": start, "limit": str(PAGE_EVENTS), **until}
            path = with_query(room_path(room.room_id, "messages"), query)
            try:
                page = await self._wire.ask("GET", path, most_bytes=MAX_SYNC_BYTES)
            except Refused as error:
                logger.warning("what was said in %s meanwhile is left out: %s", room.room_id, error)
                break
            events = objects_in(page.get("chunk"))
            found += events
            start = text_of(page.get("end"), 10_000)
            if not start or not events or _our_join(events, self._rooms.own_id) is not None:
                break
            if self._token is None and not self._read_up_to.newer(events):
                break
        else:
            logger.warning("so much was said in %s that its beginning is left out", room.room_id)
        return found[::-1]

    async def _tell(self, inbound: Inbound, sentence: str) -> None:
        try:
            await self._parts.unread.tell(inbound, sentence)
        except SendError as error:
            logger.warning("a person could not be told: %s", error)


def _our_join(events: Sequence[Object], own_id: str) -> int | None:
    """Where we came in last; a new name is no coming in."""
    for number, event in reversed(list(enumerate(events))):
        if event.get("type") != "m.room.member" or event.get("state_key") != own_id:
            continue
        before = object_of(object_of(event.get("unsigned")).get("prev_content"))
        is_in = object_of(event.get("content")).get("membership") == "join"
        if is_in and before.get("membership") != "join":
            return number
    return None
