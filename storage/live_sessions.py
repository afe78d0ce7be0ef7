"""Tickets of the sessions that the swarm may still hold, written down before they are needed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from storage.schema import live_session
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


def drop_session(connection: Connection, conversation_id: int) -> None:
    """Forget a session: its ticket is of no use any more."""
    connection.execute(delete(live_session).where(live_session.c.conversation_id == conversation_id))
