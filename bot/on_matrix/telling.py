"""Where a person is told something: below what they said, or in the chat of two if it is private. Pure."""

from bot.commands.catalogue import COMMANDS
from bot.on_matrix.rooms import Room, Rooms
from bot.words import Inbound

ASK_ME = "That is about you alone: ask me in {kind} direct message, https://matrix.to/#/{own_id}"


def where_to_tell(rooms: Rooms, inbound: Inbound, text: str) -> tuple[str, str]:
    """The room in which to say it, and what; we never open a room for it ourselves."""
    here = rooms.get(inbound.where.place)
    if not _is_personal(inbound) or here is None or here.is_direct():
        return inbound.where.place, text
    direct = rooms.direct_with(inbound.author.external_id, must_encrypt=here.is_encrypted)
    if direct is not None:
        return direct.room_id, text
    kind = "an encrypted" if here.is_encrypted else "a"
    return inbound.where.place, ASK_ME.format(kind=kind, own_id=rooms.own_id)


def is_between(room: Room, one: str, other: str) -> bool:
    """Nobody else is in a room, or may come."""
    return room.joined == {one, other} and not room.invited


def _is_personal(inbound: Inbound) -> bool:
    if inbound.mistake:
        return False
    command = COMMANDS.get(inbound.call.command) if inbound.call is not None else None
    return command is not None and command.is_personal
