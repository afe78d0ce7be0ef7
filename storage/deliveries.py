"""Messages that show an answer, each named before it is sent, so that sending it twice shows it once."""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.schema import delivery


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message of a turn. Without `message_id` nobody knows whether the platform has it."""

    turn_id: str
    part: int
    place_id: int
    key: str
    message_id: str | None = None


def intend(connection: Connection, wanted: Delivery, now_ms: int) -> Delivery:
    """Note that a message is about to be sent; returns it as it was noted first."""
    values = {"turn_id": wanted.turn_id, "part": wanted.part, "place_id": wanted.place_id, "key": wanted.key}
    connection.execute(insert(delivery).values(state="sending", at=now_ms, **values).on_conflict_do_nothing())
    where = (delivery.c.turn_id == wanted.turn_id) & (delivery.c.part == wanted.part)
    return Delivery(*connection.execute(select(*_COLUMNS).where(where)).one())


def note_shown(connection: Connection, turn_id: str, part: int, message_id: str, now_ms: int) -> None:
    """The platform has a message, under this id."""
    _set(connection, turn_id, part, state="shown", message_id=message_id, at=now_ms)


def note_gone(connection: Connection, turn_id: str, part: int, now_ms: int) -> None:
    """A message was removed, by us or by somebody."""
    _set(connection, turn_id, part, state="gone", at=now_ms)


def deliveries_of(connection: Connection, turn_id: str) -> list[Delivery]:
    """The messages of a turn that are shown, or may be, in their order."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(delivery.c.turn_id == turn_id, delivery.c.state != "gone")
        .order_by(delivery.c.part)
    )
    return [Delivery(*row) for row in rows]


_COLUMNS = (
    delivery.c.turn_id,
    delivery.c.part,
    delivery.c.place_id,
    delivery.c.key,
    delivery.c.message_id,
)


def _set(connection: Connection, turn_id: str, part: int, **values: object) -> None:
    connection.execute(
        update(delivery).where(delivery.c.turn_id == turn_id, delivery.c.part == part).values(**values)
    )
