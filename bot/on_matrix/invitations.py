"""Which rooms we enter and leave: invited by whom we may follow, never alone, and where a room goes on.

Each wish is kept until the homeserver has carried it out or refused it. Whoever may end a room of ours can
send us to another one, past what is asked of invitations: so we look there whether it goes on with that room,
as long as we are in both, and leave it if it does not.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec

from bot.clock import Clock
from bot.config.platforms import MatrixSettings
from bot.on_matrix.allowing import may_use
from bot.on_matrix.fields import Object, object_of, objects_in, text_of
from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.people import is_among, server_of
from bot.on_matrix.rooms import Room, Rooms
from bot.on_matrix.wire import Wire, room_path, with_query
from bot.receiving.access import Access
from bot.sending.pacer import Pacer
from bot.words import Limited, Refused, SendError

logger = logging.getLogger(__name__)

Wishes = dict[str, dict[str, str] | None]

MAX_WISHES = 1000
NOWHERE = ""
AGAIN_S = 10.0
REPLACED_S = 600.0
"""So long we stay in a room that goes on elsewhere: something may be being written there."""


class Invitations:
    """What we still have to enter and leave."""

    def __init__(
        self,
        wire: Wire,
        rooms: Rooms,
        settings: MatrixSettings,
        clock: Clock,
        access: Access,
        pacer: Pacer,
    ) -> None:
        self._wire = wire
        self._rooms = rooms
        self._settings = settings
        self._clock = clock
        self._access = access
        self._pacer = pacer
        self.replaced_s = REPLACED_S
        self._replaced: dict[str, float] = {}
        """Rooms that go on elsewhere, and since when we know."""
        self._followed: dict[str, str] = {}
        """Rooms that we enter for another one only, and which; NOWHERE if that does not go on there."""
        self._changed = asyncio.Event()
        self._wishes: Wishes = {}
        """Rooms to be entered, and how to ask for them; None: to be left."""

    def note_invited(self, invited: Object) -> None:
        """What a sync says about rooms that we are invited to."""
        for room_id, info in invited.items():
            events = objects_in(object_of(object_of(info).get("invite_state")).get("events"))
            inviter = _inviter(events, self._rooms.own_id)
            may_enter = self._accept(room_id, inviter, self._moved_to(room_id, events))
            if not may_enter:
                logger.info("the invitation to %s is declined", room_id)
            self._wish(room_id, _through(server_of(inviter)) if may_enter else None)

    def note_rooms(self) -> None:
        """Leave rooms in which nobody else is left, and after a while those that go on elsewhere."""
        now_s, replaced = self._clock.now_s(), filter(self._rooms.is_replaced, self._rooms)
        self._replaced = {it.room_id: self._replaced.get(it.room_id, now_s) for it in replaced}
        for room in self._rooms:
            since_s = self._replaced.get(room.room_id)
            is_over = since_s is not None and now_s - since_s >= self.replaced_s
            if is_over or room.is_deserted_by_all_but(self._rooms.own_id):
                self._wish(room.room_id, None)
        self._leave_others()

    def note_successor(self, room: Room, server: str) -> None:
        """A room goes on elsewhere; that server knows where. Who may not use us here may not there either."""
        if not room.successor or self._rooms.get(room.successor) is not None:
            return
        is_awaited = self._wishes.get(room.successor) is not None and room.successor not in self._followed
        if is_awaited:  # an invitation brings us there, whatever this room says
            return
        if self._may_be_in(room.room_id) and self._may_be_in(room.successor, after=room):
            if self._note_followed(room.successor, room):
                self._wish(room.successor, _through(server))
        else:
            logger.warning(
                "room %s goes on as %s, where I may not be: allow that room if I should",
                room.room_id,
                room.successor,
            )

    def dump(self) -> str:
        """What is still to be done, to be kept together with how far we have read."""
        return msgspec.json.encode((self._wishes, self._followed)).decode()

    def load(self, dumped: str) -> None:
        """What `dump` has given before a restart: homeservers tell of an invitation only once."""
        try:
            kept = msgspec.json.decode(dumped or "{}", type=Wishes | tuple[Wishes, dict[str, str]])
        except msgspec.DecodeError:
            logger.warning("invitations of before the restart are lost")
        else:
            wishes, followed = kept if isinstance(kept, tuple) else (kept, {})  # older ones are wishes alone
            self._wishes.update(wishes)
            self._followed.update(followed)
        self._changed.set()

    async def carry_out_forever(self) -> None:
        """Enter and leave; what the homeserver does not take now is tried again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for room_id, query in list(self._wishes.items()):
                await self._carry_out(room_id, query)
            if self._wishes:
                await self._clock.sleep(AGAIN_S)
                self._changed.set()

    def _leave_others(self) -> None:
        """Leave rooms to which another one has sent us, and which do not go on with it, or no more."""
        for new_id, old_id in list(self._followed.items()):
            new = self._rooms.get(new_id)
            old = self._moved_to(new_id) if new is None else self._rooms.going_on_in(new)
            if old is not None and self._followed.get(old.room_id) != NOWHERE:
                self._followed[new_id] = old.room_id
            elif self._is_astray(new_id, old_id):
                self._followed[new_id] = NOWHERE  # kept: we may come there yet, if we are on our way
                self._wish(new_id, None)
            elif new is not None and old_id not in self._followed and self._rooms.get(old_id) is None:
                del self._followed[new_id]  # that room went on there, and we have left it

    def _is_astray(self, new_id: str, old_id: str) -> bool:
        """The room that sent us there is none that we stay in, says so no more, or does not go on there."""
        new, old = self._rooms.get(new_id), self._rooms.get(old_id)
        if self._followed.get(old_id) == NOWHERE or (old is not None and old.successor not in ("", new_id)):
            return True
        return new is not None and (old_id == NOWHERE or new.predecessor != old_id)

    async def _carry_out(self, room_id: str, query: Mapping[str, str] | None) -> None:
        try:
            self._pacer.note_sent()  # homeservers count who comes and goes as they count messages
            if query is not None:
                await self._wire.ask("POST", with_query(f"/join/{quote(room_id, safe='')}", query))
            else:
                await self._wire.ask("POST", room_path(room_id, "leave"))
                self._rooms.leave(room_id)
        except Refused as error:
            logger.info("room %s is not to be entered or left: %s", room_id, error)
        except SendError as error:
            logger.info("room %s: %s; once more later", room_id, error)
            await self._clock.sleep(error.retry_after_s if isinstance(error, Limited) else 0)
            return
        if self._wishes.get(room_id) is query:
            del self._wishes[room_id]

    def _note_followed(self, room_id: str, old: Room) -> bool:
        """Keep in mind that a room has sent us there; the oldest of which nothing is to come makes way."""
        if len(self._followed) >= MAX_WISHES and room_id not in self._followed:
            idle = next((each for each in self._followed if each not in self._wishes), None)
            if idle is None:
                return False
            del self._followed[idle]
        self._followed[room_id] = old.room_id
        return True

    def _moved_to(self, room_id: str, events: Sequence[Object] = ()) -> Room | None:
        """The room of ours that goes on in that one, unless what an invitation shows of it says otherwise."""
        created = [object_of(it.get("content")) for it in events if it.get("type") == "m.room.create"]
        named = [text_of(object_of(it.get("predecessor")).get("room_id")) for it in created]
        moved = (room for room in self._rooms if room.successor == room_id)
        return next((room for room in moved if not named or room.room_id in named), None)

    def _accept(self, room_id: str, inviter: str, old: Room | None) -> bool:
        """Whether we enter a room. What an invitation shows of it may be forged, until we are there."""
        if not inviter or not self._may_be_in(room_id, after=old):
            return False
        if self._may_bring(inviter) and self._may_be_in(room_id) and self._has_place_for(room_id):
            self._followed.pop(room_id, None)
            return True
        # A room that goes on there takes no more place than it did.
        return old is not None and self._may_be_in(old.room_id) and self._note_followed(room_id, old)

    def _may_bring(self, inviter: str) -> bool:
        """Whether somebody may have us in a room: they may invite us, and use us there, or are an admin."""
        allowed = self._settings.allowed_inviters or (server_of(self._rooms.own_id),)
        uses = self._access.is_admin(inviter) or may_use(self._settings, self._access, inviter)
        return uses and is_among(inviter, allowed)

    def _may_be_in(self, room_id: str, *, after: Room | None = None) -> bool:
        """Whether we may be there; if admins said nothing of it, what they said of the room before holds."""
        settings, said = self._settings, self._access.rule_for(PLATFORM, (room_id,))
        if said is None and after is not None:
            said = self._access.rule_for(PLATFORM, (after.room_id,))
        if room_id in settings.denied_rooms or said is False:
            return False
        return not settings.allowed_rooms or room_id in settings.allowed_rooms or bool(said)

    def _has_place_for(self, room_id: str) -> bool:
        entering = {wished for wished, query in self._wishes.items() if query is not None} - {room_id}
        staying = sum(not self._rooms.is_replaced(room) for room in self._rooms)
        return staying + len(entering) < self._settings.max_rooms

    def _wish(self, room_id: str, query: dict[str, str] | None) -> None:
        if (room_id in self._wishes or len(self._wishes) < MAX_WISHES) and len(room_id) <= 255:
            self._wishes[room_id] = query
            self._changed.set()


def _through(server: str) -> dict[str, str]:
    """How to ask for a room that our homeserver may not know: newer ones read `via`, older ones the other."""
    return {"via": server, "server_name": server} if server else {}


def _inviter(events: list[Object], own_id: str) -> str:
    """Who invited us; nobody if that is not what the events say."""
    for event in events:
        if event.get("type") == "m.room.member" and event.get("state_key") == own_id:
            is_invitation = object_of(event.get("content")).get("membership") == "invite"
            return text_of(event.get("sender")) if is_invitation else ""
    return ""
