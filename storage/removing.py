"""Turns that are taken out of the transcript, as if they had never been said. Part of one transaction."""

from sqlalchemy import CTE, ColumnElement, Connection, delete, func, select, update

from storage.schema import conversation, turn
from storage.transcript import ancestors


def remove_turns(connection: Connection, which: ColumnElement[bool]) -> set[int]:
    """Delete turns as if they had never been said: what followed them follows what they followed.

    Returns the conversations whose sessions know of them.
    """
    touched: set[int] = set()
    for turn_id in connection.scalars(select(turn.c.id).where(which)).all():
        touched |= set(_conversations_through(connection, turn_id))
        _count_anew(connection, turn_id)
        connection.execute(
            update(turn)
            .where(turn.c.id.in_(select(_after(turn_id).c.id)), turn.c.is_anew)
            .values(prompt_ids=None)  # they say again all that was said before
        )
        parent_id = connection.scalar(select(turn.c.parent_id).where(turn.c.id == turn_id))
        connection.execute(
            update(turn).where(turn.c.parent_id == turn_id).values(parent_id=parent_id, prompt_ids=None)
        )
        connection.execute(
            update(conversation).where(conversation.c.head_id == turn_id).values(head_id=parent_id)
        )
        connection.execute(delete(turn).where(turn.c.id == turn_id))
    return touched


def _count_anew(connection: Connection, turn_id: str) -> None:
    """A turn is about to go from paths: where it did not fit any more, one turn fewer does not."""
    place = connection.scalar(select(func.count()).select_from(ancestors(turn_id)))
    is_after = turn.c.id.in_(select(_after(turn_id).c.id))
    connection.execute(
        update(turn).where(is_after, turn.c.num_dropped >= place).values(num_dropped=turn.c.num_dropped - 1)
    )


def _conversations_through(connection: Connection, turn_id: str) -> list[int]:
    """Conversations on whose path a turn lies."""
    return list(
        connection.scalars(
            select(conversation.c.id).where(conversation.c.head_id.in_(select(_after(turn_id).c.id)))
        )
    )


def _after(turn_id: str) -> CTE:
    """The ids of a turn and of all that were said after it, on any path."""
    later = select(turn.c.id).where(turn.c.id == turn_id).cte("later", recursive=True)
    return later.union_all(select(turn.c.id).join(later, turn.c.parent_id == later.c.id))
