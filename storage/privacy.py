"""What the store keeps of people: told to them, forgotten when they ask, and gone when it is old.

Whatever `forget_person` deletes, `export_person` shows.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, select, update

from storage.access import export_said, forget_named
from storage.conversations import get_conversation
from storage.ledger import Person, forget
from storage.live_sessions import LiveSession, kept_sessions
from storage.messages import asked_by
from storage.personas import personas_of, unused_personas
from storage.removing import remove_turns
from storage.schema import (
    account,
    conversation,
    delivery,
    hold,
    inbox,
    joined_message,
    ledger,
    live_session,
    place,
    report,
    setting,
    turn,
)
from storage.settings import settings_of
from storage.transcript import OPEN


@dataclass(frozen=True, slots=True)
class Deleted:
    """What sessions on servers still know of what was deleted here, and are to be closed for."""

    conversations: set[int]
    """Something was deleted that was said in them."""
    personas: set[str]
    """Instructions that no conversation follows any more."""
    sessions: dict[int, LiveSession]
    """What the store knew of the conversations' sessions: it may know it no more."""


def export_person(connection: Connection, account_id: int) -> dict[str, Any]:
    """All that is kept of a person, ready for JSON."""
    own_turns = select(turn.c.id).where(turn.c.account_id == account_id)
    own_conversations = list(
        connection.scalars(select(conversation.c.id).where(conversation.c.owner_id == account_id))
    )
    (person,) = _rows(connection, select(account).where(account.c.id == account_id))
    return {
        "account": person,
        "ledger": _rows(connection, select(ledger).where(ledger.c.account_id == account_id)),
        "holds": _rows(connection, select(hold).where(hold.c.account_id == account_id)),
        "settings": dict(settings_of(connection, "account", account_id)),
        "conversations": [
            {**row, "settings": dict(settings_of(connection, "conversation", row["id"]))}
            for row in _rows(connection, select(conversation).where(conversation.c.id.in_(own_conversations)))
        ],
        "places": _rows(connection, select(*_PLACE).where(place.c.id.in_(_places_of(account_id)))),
        "sessions": _rows(
            connection, select(*_SESSION).where(live_session.c.conversation_id.in_(own_conversations))
        ),
        "turns": [
            {**row, "origin": row["origin"].decode(errors="replace")}
            for row in _rows(connection, select(*_TOLD).where(turn.c.account_id == account_id))
        ],
        "joined_messages": _rows(
            connection, select(joined_message).where(joined_message.c.turn_id.in_(own_turns))
        ),
        "reports": _rows(connection, select(report).where(report.c.account_id == account_id)),
        "messages": _rows(connection, select(delivery).where(delivery.c.turn_id.in_(own_turns))),
        "events": [
            {**row, "payload": (row["payload"] or b"").decode(errors="replace")}
            for row in _rows(
                connection, select(inbox).where(_is_from(person["platform"], person["external_id"]))
            )
        ],
        "admins": export_said(connection, Person(person["platform"], person["external_id"])),
    }


def forget_person(connection: Connection, account_id: int, key: bytes, now_ms: int) -> Deleted:
    """Delete all that is kept of a person but what keeps today's grant from coming twice.

    Turns that run must have been stopped before.
    """
    person = connection.execute(select(account).where(account.c.id == account_id)).one()
    touched = remove_turns(connection, turn.c.account_id == account_id)
    owned = set(connection.scalars(select(conversation.c.id).where(conversation.c.owner_id == account_id)))
    personas = personas_of(connection, owned)
    connection.execute(
        update(conversation).where(conversation.c.id.in_(owned)).values(owner_id=None, persona=None)
    )
    _drop_settings(connection, "account", setting.c.scope_id == account_id)
    _drop_settings(connection, "conversation", setting.c.scope_id.in_(owned))
    sessions = kept_sessions(connection, touched | owned)
    _drop_empty(connection, conversation.c.id.in_(owned))
    connection.execute(delete(inbox).where(_is_from(person.platform, person.external_id)))
    connection.execute(delete(report).where(report.c.account_id == account_id))
    forget_named(connection, Person(person.platform, person.external_id), key)
    forget(connection, account_id, key, now_ms)
    return Deleted(touched | owned, unused_personas(connection, personas), sessions)


def forget_here(connection: Connection, account_id: int, conversation_id: int) -> Deleted:
    """Delete what a person has asked in a conversation, and the answers.

    Turns that run must have been stopped before.
    """
    personas = personas_of(connection, [conversation_id])
    which = (turn.c.account_id == account_id) & (turn.c.conversation_id == conversation_id)
    touched = remove_turns(connection, which & turn.c.state.not_in(OPEN)) | {conversation_id}
    sessions = kept_sessions(connection, touched)
    _drop_empty(connection, conversation.c.id == conversation_id)
    if get_conversation(connection, conversation_id) is None:
        _drop_settings(connection, "conversation", setting.c.scope_id == conversation_id)
    return Deleted(touched, unused_personas(connection, personas), sessions)


def forget_message(connection: Connection, place_id: int, event_id: str) -> set[int]:
    """Somebody has deleted a message on the platform: so are the turns that it has asked for.

    A message that was added to a question takes the whole question with it, as its text cannot be told apart.

    Returns the conversations whose sessions are to be closed. A turn that has not ended is left alone.
    """
    return remove_turns(connection, asked_by(place_id, event_id) & turn.c.state.not_in(OPEN))


def purge_transcripts(connection: Connection, before_ms: int) -> int:
    """Delete conversations that nobody has used since, but for turns that a younger one goes on from.

    Returns how many turns were deleted.
    """
    is_old = conversation.c.used_at < before_ms
    young = select(conversation.c.id).where(~is_old)
    heads = select(conversation.c.head_id).where(~is_old)
    is_kept = turn.c.conversation_id.in_(young) | turn.c.state.in_(OPEN) | turn.c.id.in_(heads)
    needed = select(turn.c.id, turn.c.parent_id).where(is_kept).cte("needed", recursive=True)
    needed = needed.union(select(turn.c.id, turn.c.parent_id).join(needed, turn.c.id == needed.c.parent_id))
    old = select(conversation.c.id).where(is_old)
    which = (
        turn.c.conversation_id.in_(old) & turn.c.state.not_in(OPEN) & turn.c.id.not_in(select(needed.c.id))
    )
    deleted = connection.execute(delete(turn).where(which).returning(turn.c.id)).all()
    connection.execute(
        update(conversation)
        .where(is_old, conversation.c.head_id.not_in(select(turn.c.id)))
        .values(head_id=None)
    )
    _drop_settings(connection, "conversation", setting.c.scope_id.in_(old))
    _drop_empty(connection, is_old)
    return len(deleted)


_TOLD = tuple(column for column in turn.c if column.name not in ("prompt_ids", "answer_ids"))
"""Token ids say nothing that the text does not."""
_SESSION = tuple(column for column in live_session.c if column.name not in ("ticket", "ids"))
"""The ticket is a key to servers."""
_PLACE = (place.c.id, place.c.platform, place.c.external_id, place.c.is_encrypted)


def _places_of(account_id: int) -> Select[int]:
    """Where somebody has asked or begun something."""
    asked = select(turn.c.conversation_id).where(turn.c.account_id == account_id)
    is_theirs = (conversation.c.owner_id == account_id) | conversation.c.id.in_(asked)
    return select(conversation.c.place_id).where(is_theirs)


def _rows(connection: Connection, which: Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(which).mappings()]


def _drop_settings(connection: Connection, scope: str, which: ColumnElement[bool]) -> None:
    connection.execute(delete(setting).where(setting.c.scope == scope, which))


def _drop_empty(connection: Connection, which: ColumnElement[bool]) -> None:
    """Delete conversations of which no turn is left."""
    has_turns = exists().where(turn.c.conversation_id == conversation.c.id)
    connection.execute(delete(conversation).where(which, ~has_turns))


def _is_from(platform: str, external_id: str) -> ColumnElement[bool]:
    return (inbox.c.platform == platform) & (inbox.c.sender == external_id)
