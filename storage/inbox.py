"""What platforms have told us, kept until it was dealt with, and dealt with once.

An adapter commits events together with the marker up to which it has read: after a crash it reads on from
there, and whatever comes a second time is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.schema import inbox, marker


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a platform. Only the adapter that wrote `payload` reads it."""

    event_id: str
    sender: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is still to be dealt with."""

    inbox_id: int
    event: Event
    received_ms: int


def receive(
    connection: Connection,
    platform: str,
    events: Sequence[Event],
    now_ms: int,
    markers: Mapping[str, str] | None = None,
) -> list[Waiting]:
    """Keep what is new of `events`, and how far the platform has been read; returns what is new."""
    for name, value in (markers or {}).items():
        set_marker(connection, platform, name, value)
    kept = ((event, _keep(connection, platform, event, now_ms)) for event in events)
    return [Waiting(inbox_id, event, now_ms) for event, inbox_id in kept if inbox_id is not None]


def waiting(connection: Connection, platform: str) -> list[Waiting]:
    """What is to be dealt with, oldest first."""
    rows = connection.execute(
        select(inbox.c.id, inbox.c.event_id, inbox.c.sender, inbox.c.payload, inbox.c.received_at)
        .where(inbox.c.platform == platform, inbox.c.payload.is_not(None))
        .order_by(inbox.c.id)
    )
    return [Waiting(number, Event(*event), at) for number, *event, at in rows]


def dispose(connection: Connection, inbox_id: int) -> bool:
    """An event was dealt with: forget what it said. False if it had been before."""
    disposed = connection.execute(
        update(inbox).where(inbox.c.id == inbox_id, inbox.c.payload.is_not(None)).values(payload=None)
    )
    return bool(disposed.rowcount)


def withdraw_event(connection: Connection, platform: str, event_id: str) -> None:
    """An event was deleted on the platform: if it still waits, it is not dealt with."""
    which = (inbox.c.platform == platform) & (inbox.c.event_id == event_id)
    connection.execute(update(inbox).where(which).values(payload=None))


def purge_inbox(connection: Connection, before_ms: int) -> int:
    """Forget the names of events that came before and were dealt with; returns how many."""
    return connection.execute(
        delete(inbox).where(inbox.c.received_at < before_ms, inbox.c.payload.is_(None))
    ).rowcount


def set_marker(connection: Connection, platform: str, name: str, value: str) -> None:
    """Note how far something has been read."""
    values = {"platform": platform, "name": name, "value": value}
    connection.execute(
        insert(marker)
        .values(values)
        .on_conflict_do_update(index_elements=[marker.c.platform, marker.c.name], set_={"value": value})
    )


def get_marker(connection: Connection, platform: str, name: str) -> str | None:
    """How far something has been read; None at first."""
    found: str | None = connection.scalar(
        select(marker.c.value).where(marker.c.platform == platform, marker.c.name == name)
    )
    return found


def drop_marker(connection: Connection, platform: str, name: str) -> None:
    """There is nothing to be read there any more."""
    connection.execute(delete(marker).where(marker.c.platform == platform, marker.c.name == name))


def _keep(connection: Connection, platform: str, event: Event, now_ms: int) -> int | None:
    number: int | None = connection.scalar(
        insert(inbox)
        .values(
            platform=platform,
            event_id=event.event_id,
            sender=event.sender,
            payload=event.payload,
            received_at=now_ms,
        )
        .on_conflict_do_nothing()
        .returning(inbox.c.id)
    )
    return number
