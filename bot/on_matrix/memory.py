"""What the store knows of rooms: our conversations there, and whether they were ever encrypted.

Each function is part of one transaction.
"""

from dataclasses import dataclass

from storage.access import inherit_rule
from storage.conversations import (
    find_place,
    get_conversation,
    move_place,
    note_encrypted,
    open_place,
    rooted_conversation,
    turn_behind,
)
from storage.database import Transaction
from storage.ledger import Person
from storage.settings import move_settings
from storage.transcript import get_turn, newest_turn

PLATFORM = "matrix"


@dataclass(frozen=True, slots=True)
class Below:
    """An answer of ours that somebody points at: whose, in which thread, and whether it is the last one."""

    turn_id: str
    root: str
    is_last: bool


def is_ours(connection: Transaction, room_id: str, root: str, reply_to: str, now_ms: int) -> bool:
    """Does a thread belong to a conversation, or is what somebody replies to an answer?"""
    place = open_place(connection, PLATFORM, room_id, now_ms)
    if root and rooted_conversation(connection, place.place_id, root) is not None:
        return True
    turn_id = turn_behind(connection, place.place_id, reply_to) if reply_to else None
    said = get_turn(connection, turn_id) if turn_id is not None else None
    return said is not None and said.question.event_id != reply_to


def find_below(connection: Transaction, room_id: str, event_id: str, now_ms: int) -> Below | None:
    """What an answer of ours belongs to; None if that event is none."""
    place = open_place(connection, PLATFORM, room_id, now_ms)
    turn_id = turn_behind(connection, place.place_id, event_id)
    said = get_turn(connection, turn_id) if turn_id is not None else None
    if turn_id is None or said is None:
        return None
    conversation = get_conversation(connection, said.question.conversation_id)
    if conversation is None:
        return None
    newest = newest_turn(connection, conversation.conversation_id)  # if it has failed it is not the head
    last = (conversation.head_id, None if newest is None else newest.question.turn_id)
    return Below(turn_id, conversation.root, said.state in ("queued", "running") or turn_id in last)


def move_talk(connection: Transaction, old_id: str, new_id: str, now_ms: int) -> None:
    """What was said and set in a room goes on in another one, unless people have talked to us there."""
    move_place(connection, PLATFORM, old_id, new_id, now_ms)


def move_rules(connection: Transaction, old_id: str, new_id: str, now_ms: int) -> None:
    """What moderators have set for a room, and admins have said of it, holds for the one in which it goes on.

    What was set or said there goes before. Doing it again changes nothing.
    """
    inherit_rule(connection, Person(PLATFORM, old_id), Person(PLATFORM, new_id), now_ms)
    old = find_place(connection, PLATFORM, old_id)
    if old is not None:
        move_settings(connection, old, open_place(connection, PLATFORM, new_id, now_ms).place_id)


def was_encrypted(connection: Transaction, room_id: str, now_ms: int) -> bool:
    """Was a room ever seen encrypted?"""
    return open_place(connection, PLATFORM, room_id, now_ms).is_encrypted


def remember_encrypted(connection: Transaction, room_id: str, now_ms: int) -> None:
    """Nothing may be said there in plain text any more."""
    note_encrypted(connection, open_place(connection, PLATFORM, room_id, now_ms).place_id)
