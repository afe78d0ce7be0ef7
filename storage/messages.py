"""Messages of people on a platform: whether we know them, and the turns that they have asked for."""

from sqlalchemy import ColumnElement, Connection, func, select

from storage.conversations import find_place
from storage.schema import conversation, inbox, joined_message, turn
from storage.transcript import OPEN


def asked_by(place_id: int, event_id: str) -> ColumnElement[bool]:
    """The turns at a place that a message has asked for or was added to, and other tries of them."""
    here = select(conversation.c.id).where(conversation.c.place_id == place_id)
    first = (
        select(turn.c.event_id)
        .join(joined_message, joined_message.c.turn_id == turn.c.id)
        .where(joined_message.c.event_id == event_id)
    )
    is_asked = (turn.c.event_id == event_id) | turn.c.event_id.in_(first)
    return turn.c.conversation_id.in_(here) & is_asked


def places_of(connection: Connection, platform: str, place_name: str, event_id: str) -> list[int]:
    """Where a message may be answered: its place, and the thread that was made of it and has its id."""
    found = (find_place(connection, platform, name) for name in (place_name, event_id))
    return [place_id for place_id in found if place_id is not None]


def is_known(connection: Connection, platform: str, place_name: str, event_id: str) -> bool:
    """Do we keep a message, or what became of it?"""
    received = (inbox.c.platform == platform) & (inbox.c.event_id == event_id)
    if connection.scalar(select(inbox.c.id).where(received)) is not None:
        return True
    places = places_of(connection, platform, place_name, event_id)
    return any(turns_of(connection, place_id, event_id) for place_id in places)


def asked_since(
    connection: Connection, platform: str, place_name: str, since_ms: int, most: int
) -> list[str]:
    """The messages at a place of which turns were made since then, the newest first; joined ones too."""
    here = select(conversation.c.id).where(
        conversation.c.place_id == find_place(connection, platform, place_name)
    )
    recent = turn.c.conversation_id.in_(here) & (turn.c.asked_at >= since_ms) & turn.c.event_id.is_not(None)
    asked = select(turn.c.event_id, turn.c.asked_at).where(recent)
    joined = select(joined_message.c.event_id, turn.c.asked_at).select_from(joined_message.join(turn))
    both = asked.union(joined.where(recent)).subquery()
    newest = select(both.c.event_id).group_by(both.c.event_id).order_by(func.max(both.c.asked_at).desc())
    return list(connection.scalars(newest.limit(most)))


def turns_of(connection: Connection, place_id: int, event_id: str) -> list[str]:
    """The ids of the turns that a message has to do with."""
    return list(connection.scalars(select(turn.c.id).where(asked_by(place_id, event_id))))


def is_being_answered(connection: Connection, place_id: int, event_id: str) -> bool:
    """One of a message's turns has not ended."""
    which = asked_by(place_id, event_id) & turn.c.state.in_(OPEN)
    return connection.execute(select(turn.c.id).where(which).limit(1)).first() is not None
