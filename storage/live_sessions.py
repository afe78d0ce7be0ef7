"""Tickets of the sessions that the swarm may still hold, written down before they are needed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from storage.schema import conversation, live_session, place, turn
from storage.token_ids import pack_ids, unpack_ids


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A conversation's session: what attaches to it, and until when its servers keep it."""

    conversation_id: int
    fingerprint: str
    ticket: bytes
    ids: Sequence[int]
    """What the session was told when the ticket was written, at least up to its commit."""
    lease_until_ms: int


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session as those who run the bot see it: nothing of what was said."""

    conversation_id: int
    platform: str
    place: str
    tokens: int
    used_ms: int
    lease_until_ms: int


def keep_session(connection: Connection, session: LiveSession) -> None:
    """Note a session's newest ticket."""
    values = {
        "fingerprint": session.fingerprint,
        "ticket": session.ticket,
        "ids": pack_ids(session.ids),
        "lease_until": session.lease_until_ms,
    }
    connection.execute(
        insert(live_session)
        .values(conversation_id=session.conversation_id, **values)
        .on_conflict_do_update(index_elements=[live_session.c.conversation_id], set_=values)
    )


def kept_session(connection: Connection, conversation_id: int) -> LiveSession | None:
    """The session of a conversation, if one was kept."""
    row = connection.execute(
        select(
            live_session.c.conversation_id,
            live_session.c.fingerprint,
            live_session.c.ticket,
            live_session.c.ids,
            live_session.c.lease_until,
        ).where(live_session.c.conversation_id == conversation_id)
    ).one_or_none()
    if row is None:
        return None
    return LiveSession(row.conversation_id, row.fingerprint, row.ticket, unpack_ids(row.ids), row.lease_until)


def kept_sessions(connection: Connection, conversations: Iterable[int]) -> dict[int, LiveSession]:
    """The sessions of these conversations, as far as any were kept."""
    found = ((number, kept_session(connection, number)) for number in conversations)
    return {number: kept for number, kept in found if kept is not None}


def kept_session_of_parent(connection: Connection, conversation_id: int) -> LiveSession | None:
    """The session of the conversation that another one was forked from, if one was kept."""
    before = turn.alias()
    parent_id = connection.scalar(
        select(before.c.conversation_id)
        .join(turn, turn.c.parent_id == before.c.id)
        .where(turn.c.conversation_id == conversation_id, before.c.conversation_id != conversation_id)
        .limit(1)
    )
    return None if parent_id is None else kept_session(connection, parent_id)


def drop_session(connection: Connection, conversation_id: int) -> None:
    """Forget a session: its ticket is of no use any more."""
    connection.execute(delete(live_session).where(live_session.c.conversation_id == conversation_id))


def take_session(connection: Connection, conversation_id: int) -> LiveSession | None:
    """Forget a session; returns what was known of it."""
    kept = kept_session(connection, conversation_id)
    drop_session(connection, conversation_id)
    return kept


def list_sessions(connection: Connection, number: int) -> list[ListedSession]:
    """The sessions that are kept, the one that was used last first, at most `number`."""
    rows = connection.execute(
        select(
            live_session.c.conversation_id,
            place.c.platform,
            place.c.external_id,
            live_session.c.ids,
            conversation.c.used_at,
            live_session.c.lease_until,
        )
        .join(conversation, conversation.c.id == live_session.c.conversation_id)
        .join(place, place.c.id == conversation.c.place_id)
        .order_by(conversation.c.used_at.desc())
        .limit(number)
    )
    return [
        ListedSession(conversation_id, platform, name, len(unpack_ids(ids)), used_ms, lease_ms)
        for conversation_id, platform, name, ids, used_ms, lease_ms in rows
    ]
