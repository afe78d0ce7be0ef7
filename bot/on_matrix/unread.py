"""Encrypted events whose key is not here yet: they wait for it, and then people are told, once a thread."""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from bot.clock import Clock
from bot.on_matrix.fields import Object, object_of, text_of
from bot.on_matrix.memory import PLATFORM, is_ours
from bot.on_matrix.messages import read_deletion
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.sealing import Sealer
from bot.on_matrix.translating import Heard, Translator
from bot.words import Author, Inbound, Where
from storage.database import Database

logger = logging.getLogger(__name__)

PATIENCE_S = 300.0
MAX_WAITING = 100
MAX_TOLD = 1000
UNREADABLE = (
    "I cannot decrypt what was said here: its key did not reach me. Please send it again; "
    "if that does not help, begin a new room."
)


class _Waiter(msgspec.Struct, frozen=True):
    room_id: str
    event: Object
    until_ms: int


class Unread:
    """What waits for its key."""

    def __init__(
        self,
        rooms: Rooms,
        sealer: Sealer | None,
        translator: Translator,
        tell: Callable[[Inbound, str], Awaitable[None]],
        *,
        store: Database,
        clock: Clock,
    ) -> None:
        self.tell = tell
        self.patience_s = PATIENCE_S
        self.num_failures = 0
        """Events that could not be read when they came."""
        self._rooms = rooms
        self._sealer = sealer
        self._translator = translator
        self._store = store
        self._clock = clock
        self._waiting: OrderedDict[str, _Waiter] = OrderedDict()
        self._done: set[str] = set()
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    def read(self, room: Room, event: Object) -> Object:
        """The event as it was before it was encrypted, if that can be read; otherwise it waits."""
        self._waiting.pop(read_deletion(event), None)
        if event.get("type") != "m.room.encrypted" or "state_key" in event:
            return event
        opened = self._open(room.room_id, event)
        if opened is not None:
            return opened
        event_id, sender = text_of(event.get("event_id")), text_of(event.get("sender"))
        if event_id and sender != self._rooms.own_id and object_of(event.get("content")):
            self.num_failures += 1
            self._waiting[event_id] = _Waiter(room.room_id, event, self._until_ms())
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popitem(last=False)
        return event

    @property
    def num_waiting(self) -> int:
        """How many events wait for their key."""
        return len(self._waiting)

    async def hear(self, heard: Heard, *, may_have_keys: bool) -> None:
        """Hear what can be read by now, and tell of what never will; `commit` when that is kept."""
        now_ms = self._clock.now_ms()
        self._done.clear()
        for event_id, waiter in self._waiting.items():
            room, is_late = self._rooms.get(waiter.room_id), now_ms >= waiter.until_ms
            opened = self._open(waiter.room_id, waiter.event) if may_have_keys or is_late else None
            if opened is None and room is not None and not is_late:
                continue
            self._done.add(event_id)
            if room is not None and opened is not None:
                await self._translator.hear_one(room, opened, heard)
            elif room is not None:
                await self._give_up(room, waiter.event, heard)

    def commit(self) -> None:
        """What `hear` has dealt with no longer waits."""
        for event_id in self._done:
            self._waiting.pop(event_id, None)
        self._done.clear()

    def dump(self) -> str:
        """What still waits, to be kept together with how far we have read; "" if nothing does."""
        left = {event_id: it for event_id, it in self._waiting.items() if event_id not in self._done}
        return msgspec.json.encode(left).decode() if left else ""

    def load(self, dumped: str) -> None:
        """What `dump` has given before a restart. What cannot be read is left out."""
        try:
            self._waiting.update(msgspec.json.decode(dumped or "{}", type=dict[str, _Waiter]))
        except msgspec.DecodeError:
            logger.warning("what waited for its keys is lost")

    def _until_ms(self) -> int:
        return self._clock.now_ms() + round(self.patience_s * 1000)

    def _open(self, room_id: str, event: Object) -> Object | None:
        return self._sealer.open(room_id, event) if self._sealer is not None else None

    async def _give_up(self, room: Room, event: Object, heard: Heard) -> None:
        """Say it where it was for us, as far as we can know."""
        relation = object_of(object_of(event.get("content")).get("m.relates_to"))
        root = text_of(relation.get("event_id")) if relation.get("rel_type") == "m.thread" else ""
        reply_to = text_of(object_of(relation.get("m.in_reply_to")).get("event_id"))
        now_ms = self._clock.now_ms()
        if not room.is_direct() and not await self._store.write(
            is_ours, room.room_id, root, reply_to, now_ms
        ):
            return
        if (room.room_id, root) in self._told:
            return
        self._told[room.room_id, root] = None
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        sender = text_of(event.get("sender"))
        where = Where(PLATFORM, room.room_id, "group" if root else "direct", root)
        author = Author(sender, room.name_of(sender))
        heard.told.append((Inbound(text_of(event.get("event_id")), where, author, "", now_ms), UNREADABLE))
