"""What was asked and answered, turn by turn, and the token ids that the sessions were really told.

A turn is queued, runs, and ends in one of a few ways; a crash leaves it in the state in which it was.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from sqlalchemy import CTE, ColumnElement, Connection, case, func, insert, select, update

from storage.conversations import move_head
from storage.schema import conversation, joined_message, turn
from storage.token_ids import pack_ids, unpack_ids

State = Literal["queued", "running", "done", "stopped", "length", "failed", "interrupted"]
OPEN = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Question:
    """What a turn is to answer; `event_id` names the message, if there is one."""

    turn_id: str
    conversation_id: int
    account_id: int
    prompt: str
    event_id: str | None = None
    origin: bytes = b""
    """Whatever the bot needs to answer where it was asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn is to stand, if not behind what was said last: another try, after `parent_id`."""

    parent_id: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a turn has come to so far."""

    answer: str = ""
    prompt_ids: Sequence[int] | None = None
    """All that the session was told since the parent's answer: what the template adds, and the prompt. With
    `is_anew`, all that it was told. None if that does not hold any more: a turn before was deleted."""
    answer_ids: Sequence[int] = ()
    _: KW_ONLY
    is_anew: bool = False
    num_dropped: int = 0
    """So many turns of the path, the oldest, are not in the session."""
    prefill_tokens: int = 0
    new_tokens: int = 0
    num_before: int | None = None
    """So many turns were on its path when it began, the dropped ones too. For writing alone."""


@dataclass(frozen=True, slots=True)
class Said:
    """A turn as the transcript keeps it."""

    question: Question
    parent_id: str | None
    state: State
    progress: Progress
    asked_ms: int
    ended_ms: int | None
    model: str | None = None
    is_retry: bool = False


def ask(connection: Connection, question: Question, now_ms: int, retry: Place | None = None) -> None:
    """Queue a turn; its conversation is used now. Raises IntegrityError if there is one of that id."""
    connection.execute(
        update(conversation)
        .where(conversation.c.id == question.conversation_id)
        .values(used_at=func.max(conversation.c.used_at, now_ms))
    )
    connection.execute(
        insert(turn).values(
            id=question.turn_id,
            conversation_id=question.conversation_id,
            account_id=question.account_id,
            event_id=question.event_id,
            origin=question.origin,
            prompt=question.prompt,
            state="queued",
            asked_at=now_ms,
            is_retry=retry is not None,
            parent_id=None if retry is None else retry.parent_id,
        )
    )


def extend(connection: Connection, turn_id: str, prompt: str, event_id: str | None = None) -> bool:
    """Replace the prompt of a turn of which nothing is to be seen; False if it is too late.

    `event_id` names the message that was added.
    """
    if not _changed(connection, turn_id, OPEN, turn.c.answer == "", prompt=prompt):
        return False
    if event_id is not None:
        connection.execute(insert(joined_message).values(turn_id=turn_id, event_id=event_id))
    return True


def start(connection: Connection, turn_id: str, model: str, now_ms: int) -> bool:
    """A queued turn runs now, after the last one of its conversation; False if it does not wait any more."""
    head = select(conversation.c.head_id).where(conversation.c.id == turn.c.conversation_id)
    return _changed(
        connection,
        turn_id,
        ("queued",),
        state="running",
        model=model,
        started_at=now_ms,
        parent_id=case((turn.c.is_retry, turn.c.parent_id), else_=head.scalar_subquery()),
    )


def checkpoint(connection: Connection, turn_id: str, progress: Progress) -> bool:
    """Keep what a running turn has come to; False if it has ended."""
    return _changed(connection, turn_id, ("running",), **_values(connection, turn_id, progress))


def end(
    connection: Connection, turn_id: str, state: State, now_ms: int, progress: Progress | None = None
) -> bool:
    """End a turn; if it has said anything, the next one follows it. False if it had ended before."""
    values = {} if progress is None else _values(connection, turn_id, progress)
    if not _changed(connection, turn_id, OPEN, state=state, ended_at=now_ms, **values):
        return False
    said = connection.execute(
        select(turn.c.conversation_id, turn.c.answer_ids).where(turn.c.id == turn_id)
    ).one()
    if said.answer_ids is not None:
        move_head(connection, said.conversation_id, turn_id, now_ms)
    return True


def requeue(connection: Connection, turn_id: str) -> bool:
    """A turn that was running when the process died, and had shown nothing, waits again."""
    return _changed(connection, turn_id, ("running",), turn.c.answer == "", state="queued", started_at=None)


def open_turns(connection: Connection) -> list[Said]:
    """Turns that have not ended, in the order in which they were asked."""
    return _said(connection, turn.c.state.in_(OPEN))


def note_delivered(connection: Connection, turn_id: str, now_ms: int) -> None:
    """All of a turn's answer is to be seen."""
    connection.execute(update(turn).where(turn.c.id == turn_id).values(delivered_at=now_ms))


def undelivered_turns(connection: Connection) -> list[Said]:
    """Turns that have ended, but whose readers may not know it: the process died in between."""
    return _said(connection, turn.c.state.not_in(OPEN) & turn.c.delivered_at.is_(None))


def last_asked(connection: Connection, conversation_id: int, account_id: int, since_ms: int) -> Said | None:
    """The open turn that somebody has asked for in a conversation last, if that was not before `since_ms`."""
    which = (turn.c.conversation_id == conversation_id) & (turn.c.account_id == account_id)
    recent = _said(connection, which & turn.c.state.in_(OPEN) & (turn.c.asked_at >= since_ms))
    return recent[-1] if recent else None


def all_turns(connection: Connection, conversation_id: int) -> list[Said]:
    """All that was asked in a conversation, whatever became of it, in that order."""
    return _said(connection, turn.c.conversation_id == conversation_id)


def newest_turn(connection: Connection, conversation_id: int) -> Said | None:
    """What was asked last in a conversation, whatever became of it."""
    found = all_turns(connection, conversation_id)
    return found[-1] if found else None


def has_open_turns(connection: Connection, conversation_id: int) -> bool:
    """Something is being answered in a conversation, or waits for it."""
    which = (turn.c.conversation_id == conversation_id) & turn.c.state.in_(OPEN)
    return connection.execute(select(turn.c.id).where(which).limit(1)).first() is not None


def get_turn(connection: Connection, turn_id: str) -> Said | None:
    """The turn of that id."""
    return next(iter(_said(connection, turn.c.id == turn_id)), None)


def path_to(connection: Connection, head_id: str | None) -> list[Said]:
    """The turns from the first one to `head_id`."""
    steps = select(ancestors(head_id).c.id)
    on_path = {said.question.turn_id: said for said in _said(connection, turn.c.id.in_(steps))}
    path: list[Said] = []
    while head_id is not None:
        path.append(on_path[head_id])
        head_id = path[-1].parent_id
    return path[::-1]


def ancestors(turn_id: str | None) -> CTE:
    """The ids of a turn and of all that were said before it."""
    steps = select(turn.c.id, turn.c.parent_id).where(turn.c.id == turn_id).cte("steps", recursive=True)
    return steps.union_all(select(turn.c.id, turn.c.parent_id).join(steps, turn.c.id == steps.c.parent_id))


def _changed(
    connection: Connection,
    turn_id: str,
    states: Sequence[str],
    *only_if: ColumnElement[bool],
    **values: object,
) -> bool:
    changed = connection.execute(
        update(turn).where(turn.c.id == turn_id, turn.c.state.in_(states), *only_if).values(**values)
    )
    return bool(changed.rowcount)


def _values(connection: Connection, turn_id: str, progress: Progress) -> dict[str, object]:
    """What is kept of a turn: not what it was told, if something of that was deleted meanwhile."""
    num_gone = _num_gone(connection, turn_id, progress)
    is_whole = progress.prompt_ids is not None and not num_gone
    return {
        "answer": progress.answer,
        "prompt_ids": pack_ids(progress.prompt_ids or ()) if is_whole else None,
        "answer_ids": pack_ids(progress.answer_ids) if progress.answer_ids else None,
        "is_anew": progress.is_anew,
        "num_dropped": max(0, progress.num_dropped - num_gone),
        "prefill_tokens": progress.prefill_tokens,
        "new_tokens": progress.new_tokens,
    }


def _num_gone(connection: Connection, turn_id: str, progress: Progress) -> int:
    """How many turns were deleted before a turn since it began."""
    if progress.num_before is None:
        return 0
    num_left = connection.scalar(select(func.count()).select_from(ancestors(turn_id))) or 0
    return progress.num_before + 1 - num_left


def _said(connection: Connection, which: ColumnElement[bool]) -> list[Said]:
    rows = connection.execute(select(turn).where(which).order_by(turn.c.asked_at, turn.c.id))
    return [
        Said(
            Question(row.id, row.conversation_id, row.account_id, row.prompt, row.event_id, row.origin),
            row.parent_id,
            row.state,
            Progress(
                row.answer,
                None if row.prompt_ids is None else unpack_ids(row.prompt_ids),
                [] if row.answer_ids is None else unpack_ids(row.answer_ids),
                is_anew=row.is_anew,
                num_dropped=row.num_dropped,
                prefill_tokens=row.prefill_tokens,
                new_tokens=row.new_tokens,
            ),
            row.asked_at,
            row.ended_at,
            row.model,
            row.is_retry,
        )
        for row in rows
    ]
