"""Answers that people have reported, for admins to look at. Each function is part of one transaction."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from storage.ledger import Person
from storage.schema import account, conversation, delivery, place, report, turn
from storage.transcript import OPEN


@dataclass(frozen=True, slots=True)
class Report:
    """An answer that somebody has reported: who, where it is, and why."""

    turn_id: str
    reporter: Person
    place: Person
    """Named as people are: by its platform, and its name there."""
    message_id: str
    """The last message that shows it; "" if there is none."""
    reason: str
    at_ms: int


def note_report(connection: Connection, turn_id: str, account_id: int, reason: str, now_ms: int) -> bool:
    """Somebody reports an answer, or does so again with a reason; False if they had reported it before."""
    which = (report.c.turn_id == turn_id) & (report.c.account_id == account_id)
    is_first = connection.scalar(select(report.c.at).where(which)) is None
    noted = insert(report).values(turn_id=turn_id, account_id=account_id, reason=reason, at=now_ms)
    again = {"reason": reason, "at": now_ms} if reason else {"at": now_ms}
    connection.execute(
        noted.on_conflict_do_update(index_elements=[report.c.turn_id, report.c.account_id], set_=again)
    )
    return is_first


def last_reports(connection: Connection, number: int) -> list[Report]:
    """The last reports, the newest first."""
    shown = (
        select(delivery.c.message_id)
        .where(delivery.c.turn_id == report.c.turn_id, delivery.c.state == "shown")
        .order_by(delivery.c.part.desc())
        .limit(1)
        .scalar_subquery()
    )
    who, where = (account.c.platform, account.c.external_id), (place.c.platform, place.c.external_id)
    rows = connection.execute(
        select(report.c.turn_id, *who, *where, func.coalesce(shown, ""), report.c.reason, report.c.at)
        .join(account, account.c.id == report.c.account_id)
        .join(turn, turn.c.id == report.c.turn_id)
        .join(conversation, conversation.c.id == turn.c.conversation_id)
        .join(place, place.c.id == conversation.c.place_id)
        .order_by(report.c.at.desc(), report.c.turn_id)
        .limit(number)
    )
    return [
        Report(turn_id, Person(*named[:2]), Person(*named[2:]), message_id, reason, at_ms)
        for turn_id, *named, message_id, reason, at_ms in rows
    ]


def is_answer_at(connection: Connection, place_id: int, turn_id: str) -> bool:
    """A turn has ended with an answer, and at that place."""
    return _newest(connection, (conversation.c.place_id == place_id) & (turn.c.id == turn_id)) is not None


def latest_answer(connection: Connection, place_id: int, conversation_id: int | None = None) -> str | None:
    """The turn that has ended with an answer last, at a place or in one of its conversations."""
    here = conversation.c.place_id == place_id
    return _newest(
        connection, here if conversation_id is None else here & (conversation.c.id == conversation_id)
    )


def _newest(connection: Connection, which: ColumnElement[bool]) -> str | None:
    found: str | None = connection.scalar(
        select(turn.c.id)
        .join(conversation, conversation.c.id == turn.c.conversation_id)
        .where(which, turn.c.answer != "", turn.c.state.not_in(OPEN))
        .order_by(turn.c.ended_at.desc(), turn.c.id.desc())
        .limit(1)
    )
    return found
