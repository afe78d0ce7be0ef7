"""What we know of the rooms that we are in: who is there, who may do what, whether it is encrypted. Pure.

Folded from state events. matrix-nio does the same, but for creators, whom rooms of version 12 have instead of
power levels.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from bot.on_matrix.fields import MAX_NAME_LETTERS, Object, list_of, number_of, object_of, text_of

MODERATOR_LEVEL = 50
CREATOR_LEVEL = 100
CREATORS_RULE_SINCE = 12
CREATORS_RULE = ("org.matrix.hydra.11",)
"""Names of versions that are no number and have creators."""


@dataclass
class Room:
    """One room, as its state is now."""

    room_id: str
    joined: set[str] = field(default_factory=set)
    invited: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    """Display names of those whose name is another than their id."""
    creators: frozenset[str] = frozenset()
    is_ruled_by_creators: bool = False
    is_encrypted: bool = False
    predecessor: str = ""
    """The room that goes on here, as its creator says."""
    _levels: Object | None = None
    _tombstone: Object = field(default_factory=dict)

    def fold(self, event: Object) -> None:
        """Take in a state event; whatever it is not is left out."""
        content = object_of(event.get("content"))
        if event.get("type") == "m.room.member":
            self._note_member(text_of(event.get("state_key")), content)
        elif event.get("state_key") == "":
            self._fold_own(event, content)

    def _fold_own(self, event: Object, content: Object) -> None:
        """Take in what is said of the room itself."""
        match event.get("type"):
            case "m.room.create":
                self._note_creation(text_of(event.get("sender")), content)
            case "m.room.power_levels":
                self._levels = content
            case "m.room.encryption":
                self.is_encrypted = True  # for ever, whatever comes later
            case "m.room.tombstone":
                self._tombstone = event

    @property
    def successor(self) -> str:
        """The room in which this one goes on, as somebody has said who may end it; "" if nobody has."""
        if not self._may_end(text_of(self._tombstone.get("sender"))):
            return ""
        return text_of(object_of(self._tombstone.get("content")).get("replacement_room"))

    def name_of(self, user_id: str) -> str:
        """What people read as the name of somebody."""
        return self.names.get(user_id) or user_id[1:].partition(":")[0]

    def is_direct(self) -> bool:
        """Nobody but two are here, or invited."""
        return len(self.joined | self.invited) == 2

    def is_deserted_by_all_but(self, user_id: str) -> bool:
        """Nobody else is here, nor may come."""
        return self.joined == {user_id} and not self.invited

    def is_moderator(self, user_id: str) -> bool:
        """May somebody act on what others have asked for?"""
        return self._has_power(user_id, MODERATOR_LEVEL)

    def _may_end(self, user_id: str) -> bool:
        """A moderator may, unless the room asks for more. Where it asks for less, anybody could move it."""
        levels = self._levels or {}
        for_state = number_of(levels.get("state_default"), MODERATOR_LEVEL)
        asked = number_of(object_of(levels.get("events")).get("m.room.tombstone"), for_state)
        return self._has_power(user_id, max(asked, MODERATOR_LEVEL))

    def _has_power(self, user_id: str, level: int) -> bool:
        if self.is_ruled_by_creators and user_id in self.creators:
            return True
        return self._level_of(user_id) >= level

    def _level_of(self, user_id: str) -> int:
        if self._levels is None:
            return CREATOR_LEVEL if user_id in self.creators else 0
        default = number_of(self._levels.get("users_default"))
        return number_of(object_of(self._levels.get("users")).get(user_id), default)

    def _note_member(self, user_id: str, content: Object) -> None:
        if not user_id:
            return
        membership = content.get("membership")
        for group, name in ((self.joined, "join"), (self.invited, "invite")):
            (group.add if membership == name else group.discard)(user_id)
        if membership in ("join", "invite") and (shown := content.get("displayname")):
            self.names[user_id] = " ".join(str(shown).split())[:MAX_NAME_LETTERS]
        else:
            self.names.pop(user_id, None)

    def _note_creation(self, sender: str, content: Object) -> None:
        version = content.get("room_version")
        self.is_ruled_by_creators = number_of(version) >= CREATORS_RULE_SINCE or version in CREATORS_RULE
        more = map(text_of, list_of(content.get("additional_creators")))
        first = sender or text_of(content.get("creator"))
        self.predecessor = text_of(object_of(content.get("predecessor")).get("room_id"))
        self.creators = frozenset(filter(None, (first, *(more if self.is_ruled_by_creators else ()))))


class Rooms:
    """All rooms that we are in."""

    def __init__(self, own_id: str) -> None:
        self.own_id = own_id
        self._rooms: dict[str, Room] = {}

    def __iter__(self) -> Iterator[Room]:
        return iter(self._rooms.values())

    def __len__(self) -> int:
        return len(self._rooms)

    def get(self, room_id: str) -> Room | None:
        """The room of that id, if we are in it."""
        return self._rooms.get(room_id)

    def open(self, room_id: str) -> Room:
        """The room of that id, which may be new to us."""
        return self._rooms.setdefault(room_id, Room(room_id))

    def leave(self, room_id: str) -> None:
        """We are there no more."""
        self._rooms.pop(room_id, None)

    def others_than(self, room_ids: Container[str]) -> list[str]:
        """The rooms that we are in beside these."""
        return [room_id for room_id in self._rooms if room_id not in room_ids]

    def is_replaced(self, room: Room) -> bool:
        """It goes on in another one, in which we are too."""
        return room.successor != room.room_id and room.successor in self._rooms

    def going_on_in(self, room: Room) -> Room | None:
        """The room of ours that goes on in this one, if both say so."""
        old = self._rooms.get(room.predecessor)
        return old if old is not None and old.successor == room.room_id != old.room_id else None

    def moves_of(self, room: Room) -> Iterator[tuple[Room, Room]]:
        """Which of our rooms goes on in which, as far as `room` is one of both."""
        for new in (room, self._rooms.get(room.successor)):
            old = self.going_on_in(new) if new is not None else None
            if new is not None and old is not None and room in (old, new):
                yield old, new

    def direct_with(self, user_id: str, *, must_encrypt: bool = False) -> Room | None:
        """A room in which nobody is but somebody and we; an encrypted one if possible, or if it must be."""
        both = {user_id, self.own_id}
        alone = [room for room in self._rooms.values() if room.joined == both and not room.invited]
        found = [room for room in alone if not self.is_replaced(room)]
        sealed = [room for room in found if room.is_encrypted]
        return next(iter(sealed if sealed or must_encrypt else found), None)
