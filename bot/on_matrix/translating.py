"""From a room's events to what the core hears: messages for us, commands, signs under our answers."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from bot.clock import Clock
from bot.commands.named import NAMED_TURN
from bot.commands.registry import Mistake
from bot.config.platforms import MatrixSettings
from bot.on_matrix.allowing import may_use
from bot.on_matrix.calls import read_call, read_reaction
from bot.on_matrix.fields import Object, number_of, text_of
from bot.on_matrix.memory import PLATFORM, find_below, is_ours
from bot.on_matrix.messages import Message, read_deletion, read_message
from bot.on_matrix.rooms import Room
from bot.receiving.access import Access
from bot.words import Author, Call, Inbound, Where
from storage.database import Database
from storage.errors import StorageError
from storage.inbox import Event
from storage.messages import is_known

logger = logging.getLogger(__name__)

MAX_RECENT = 1000
EMPTY = "Yes? Ask me something, or see `{prefix}help`."


@dataclass
class Heard:
    """What is to be kept of some events, and what people are to be told at once."""

    events: list[Event] = field(default_factory=list)
    told: list[tuple[Inbound, str]] = field(default_factory=list)

    def keep(self, inbound: Inbound) -> None:
        """The core will deal with it."""
        payload = msgspec.json.encode(inbound)
        self.events.append(Event(inbound.event_id, inbound.author.external_id, payload))


class Translator:
    """Reads the events of rooms. What it knows of conversations is in the store."""

    def __init__(
        self,
        own_id: str,
        settings: MatrixSettings,
        prefix: str,
        store: Database,
        clock: Clock,
        access: Access | None = None,
    ) -> None:
        self._own_id = own_id
        self._settings = settings
        self._prefix = prefix
        self._store = store
        self._clock = clock
        self._access = access or Access(clock)
        self._recent: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Threads that our answers will begin; the store does not know the newest ones yet."""

    async def hear(self, room: Room, events: Sequence[Object], heard: Heard) -> None:
        """Take a room's events in, in their order, state events too."""
        for event in events:
            if "state_key" in event:
                room.fold(event)
            else:
                await self.hear_one(room, event, heard)

    async def hear_one(self, room: Room, event: Object, heard: Heard) -> None:
        """Take one event in that is no state. One that we fail on is left out, or it would come for ever."""
        try:
            await self._hear_one(room, event, heard)
        except StorageError:
            raise
        except Exception:  # a mistake of ours
            logger.exception("event %s cannot be taken in", text_of(event.get("event_id")))

    async def _hear_one(self, room: Room, event: Object, heard: Heard) -> None:
        if deleted := read_deletion(event):
            await self._hear_deletion(room, event, deleted, heard)
            return
        message = read_message(event, room, self._own_id, self._clock.now_ms())
        call = None if message is None else self._read_call(message, is_for_us=False)
        if not self._may(room, text_of(event.get("sender")), "" if call is None else call.command):
            return
        reaction = read_reaction(event)
        if reaction is not None:
            await self._hear_sign(room, event, reaction, heard)
        elif message is not None and (room.is_direct() or await self._is_for_us(room, message)):
            self._hear_said(room, message, heard)
        elif message is not None:
            self._hear_call(room, message, heard, is_for_us=False)

    def _may(self, room: Room, sender: str, command: str) -> bool:
        """May somebody use us here? Of an admin's own command admins cannot deny anything."""
        settings, is_order = self._settings, self._access.is_order(sender, command)
        said_of_room = self._access.rule_for(PLATFORM, (room.room_id,), is_order=is_order)
        is_denied = not {room.room_id, room.predecessor}.isdisjoint(settings.denied_rooms)
        if sender in ("", self._own_id) or is_denied or said_of_room is False:
            return False
        if settings.allowed_rooms and room.room_id not in settings.allowed_rooms and not said_of_room:
            return False
        if room.is_direct() and not settings.direct_messages:
            return False
        return may_use(settings, self._access, sender, is_order=is_order)

    async def _is_for_us(self, room: Room, message: Message) -> bool:
        if message.is_mention or (room.room_id, message.root) in self._recent:
            return True
        if self._access.habits.is_on("always", PLATFORM, room.room_id):
            return not message.is_for_all
        if not (message.root or message.reply_to):
            return False
        return await self._store.write(
            is_ours, room.room_id, message.root, message.reply_to, self._clock.now_ms()
        )

    def _hear_said(self, room: Room, message: Message, heard: Heard) -> None:
        """What was said to us: a command, or what is to be answered."""
        if self._hear_call(room, message, heard, is_for_us=True):
            return
        if not message.text and not message.files:
            self._correct(room, message, heard, Mistake(EMPTY.format(prefix=self._prefix)))
            return
        self._note_thread(room, message)
        heard.keep(self._inbound(room, message))

    def _hear_call(self, room: Room, message: Message, heard: Heard, *, is_for_us: bool) -> bool:
        """Take a command in; False if it is none."""
        call = self._read_call(message, is_for_us=is_for_us)
        if call is None:
            return False
        if isinstance(call, Mistake):
            self._correct(room, message, heard, call)
        elif call.command == "ask":
            self._note_thread(room, message)
            heard.keep(msgspec.structs.replace(self._inbound(room, message), text=call.arguments["text"]))
        else:
            heard.keep(msgspec.structs.replace(self._inbound(room, message), text="", call=call))
        return True

    def _read_call(self, message: Message, *, is_for_us: bool) -> Call | Mistake | None:
        return read_call(
            message.text,
            self._prefix,
            is_for_us=is_for_us,
            is_mention=message.is_mention,
            is_admin=self._access.is_admin(message.sender),
        )

    def _correct(self, room: Room, message: Message, heard: Heard, mistake: Mistake) -> None:
        """Have the core tell somebody what to write instead, as often as it listens to them at all."""
        said, call = self._inbound(room, message), Call(mistake.command)
        heard.keep(msgspec.structs.replace(said, text="", files=(), call=call, mistake=mistake.sentence))

    async def _hear_sign(self, room: Room, event: Object, reaction: tuple[str, str], heard: Heard) -> None:
        """A sign under an answer of ours is a command about it, whatever else goes on there by now."""
        target, command = reaction
        now_ms = self._clock.now_ms()
        below = await self._store.write(find_below, room.room_id, target, now_ms)
        event_id = text_of(event.get("event_id"))
        if below is None or not below.is_last or not event_id:
            return
        sent_ms = min(max(number_of(event.get("origin_server_ts")), 0), now_ms)
        where = Where(PLATFORM, room.room_id, "group" if below.root else "direct", below.root)
        author = self._author(room, text_of(event.get("sender")))
        call = Call(command, {NAMED_TURN: below.turn_id})
        heard.keep(Inbound(event_id, where, author, "", sent_ms, target, call))

    async def _hear_deletion(self, room: Room, event: Object, deleted: str, heard: Heard) -> None:
        """Somebody, who may do so, has taken a message back; whoever it is, we obey."""
        event_id, sender = text_of(event.get("event_id")), text_of(event.get("sender"))
        is_new = any(each.event_id == deleted for each in heard.events)
        if not event_id or sender in ("", self._own_id):
            return
        if is_new or await self._store.read(is_known, PLATFORM, room.room_id, deleted):
            where = Where(PLATFORM, room.room_id, "group")
            author = self._author(room, sender)
            heard.keep(Inbound(event_id, where, author, "", self._clock.now_ms(), deleted=deleted))

    def _inbound(self, room: Room, message: Message) -> Inbound:
        # A thread is a conversation of its own in a chat of two as well.
        is_direct = room.is_direct() and not message.root
        where = Where(PLATFORM, room.room_id, "direct" if is_direct else "group", message.root)
        author = self._author(room, message.sender)
        return Inbound(
            message.event_id,
            where,
            author,
            message.text,
            message.sent_ms,
            message.reply_to,
            files=message.files,
        )

    def _author(self, room: Room, user_id: str) -> Author:
        return Author(user_id, room.name_of(user_id), room.is_moderator(user_id))

    def _note_thread(self, room: Room, message: Message) -> None:
        self._recent[room.room_id, message.root or message.event_id] = None
        while len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
