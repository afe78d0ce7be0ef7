"""Where people talk, and the lines of talk there. Each function is part of one transaction.

A conversation is a path through a tree of turns, named by its last one, its head. Forks share what came
before, so a turn may belong to the path of a conversation that did not begin it.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Row, Select, func, select, update
from sqlalchemy.dialects.sqlite import insert

from storage.schema import conversation, delivery, place, turn
from storage.settings import move_settings


@dataclass(frozen=True, slots=True)
class Place:
    """A room, channel, thread or direct chat, and what we remember of it."""

    place_id: int
    is_encrypted: bool
    told_ms: int | None
    joined_ms: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A line of talk. Without `root` it is one of those of which a place has one at a time."""

    conversation_id: int
    place_id: int
    root: str
    owner_id: int | None
    head_id: str | None
    persona: str | None


def open_place(connection: Connection, platform: str, external_id: str, now_ms: int) -> Place:
    """The place of that name, noted if it is new, and used now."""
    found = connection.execute(
        insert(place)
        .values(platform=platform, external_id=external_id, joined_at=now_ms, used_at=now_ms)
        .on_conflict_do_update(
            index_elements=[place.c.platform, place.c.external_id], set_={"used_at": now_ms}
        )
        .returning(place.c.id, place.c.is_encrypted, place.c.told_at, place.c.joined_at)
    )
    return Place(*found.one())


def find_place(connection: Connection, platform: str, external_id: str) -> int | None:
    """The number of the place of that name; None if nobody has talked to us there."""
    found: int | None = connection.scalar(
        select(place.c.id).where(place.c.platform == platform, place.c.external_id == external_id)
    )
    return found


def move_place(connection: Connection, platform: str, old_id: str, new_id: str, now_ms: int) -> bool:
    """Have a place go on under another name; False if it has none, or people have talked under that name.

    What else was noted under that name holds for it: whether people were told, what was set, that it is
    private. Under its old name it is a new place, as private as it was.
    """
    old = find_place(connection, platform, old_id)
    if old is None:
        return False
    new = find_place(connection, platform, new_id)
    if new is not None:
        return _take_name(connection, old, new)
    values = {"external_id": new_id, "told_at": None, "used_at": now_ms}
    is_private = connection.scalar(
        update(place).where(place.c.id == old).values(values).returning(place.c.is_encrypted)
    )
    if is_private:
        note_encrypted(connection, open_place(connection, platform, old_id, now_ms).place_id)
    return True


def note_encrypted(connection: Connection, place_id: int) -> None:
    """Remember for good that nothing may be said here in plain text."""
    connection.execute(update(place).where(place.c.id == place_id).values(is_encrypted=True))


def was_told(connection: Connection, platform: str, external_id: str) -> bool:
    """People at the place of that name were told who can read what they write."""
    which = (place.c.platform == platform) & (place.c.external_id == external_id)
    return connection.scalar(select(place.c.told_at).where(which)) is not None


def note_told(connection: Connection, place_id: int, now_ms: int) -> bool:
    """Note that people here were told who can read what they write; False if they had been before."""
    noted = connection.execute(
        update(place).where(place.c.id == place_id, place.c.told_at.is_(None)).values(told_at=now_ms)
    )
    return bool(noted.rowcount)


def begin_conversation(
    connection: Connection,
    place_id: int,
    owner_id: int,
    now_ms: int,
    *,
    root: str = "",
    after: str | None = None,
) -> Conversation:
    """A new conversation; `after` a turn it goes on from there, and shares the persona of what it leaves."""
    persona = None if after is None else _persona_around(connection, after)
    times = {"current_at": _after_all(connection, place_id, now_ms), "used_at": now_ms}
    row = connection.execute(
        insert(conversation)
        .values(place_id=place_id, root=root, owner_id=owner_id, head_id=after, persona=persona, **times)
        .returning(*_COLUMNS)
    )
    return Conversation(*row.one())


def current_conversation(connection: Connection, place_id: int) -> Conversation | None:
    """The conversation that a message without any reference belongs to, if the place has one."""
    return _first(connection, _newest().where(conversation.c.place_id == place_id, conversation.c.root == ""))


def rooted_conversation(connection: Connection, place_id: int, root: str) -> Conversation | None:
    """The conversation that began with the message `root`, or whose thread it is."""
    return _first(
        connection, _newest().where(conversation.c.place_id == place_id, conversation.c.root == root)
    )


def latest_conversation(connection: Connection, place_id: int, owner_id: int) -> Conversation | None:
    """The conversation here in which somebody has asked last."""
    asked = (
        select(*_COLUMNS)
        .join(turn, turn.c.conversation_id == conversation.c.id)
        .where(conversation.c.place_id == place_id, turn.c.account_id == owner_id)
        .order_by(turn.c.asked_at.desc())
    )
    return _first(connection, asked)


def get_conversation(connection: Connection, conversation_id: int) -> Conversation | None:
    """The conversation of that number."""
    return _first(connection, select(*_COLUMNS).where(conversation.c.id == conversation_id))


def turn_behind(connection: Connection, place_id: int, message_id: str) -> str | None:
    """The turn that a message belongs to: as a part of its answer, or as what asked for it."""
    shown = select(delivery.c.turn_id).where(
        delivery.c.place_id == place_id, delivery.c.message_id == message_id
    )
    asked = (
        select(turn.c.id)
        .join(conversation)
        .where(conversation.c.place_id == place_id, turn.c.event_id == message_id)
    )
    found: str | None = connection.scalar(shown.limit(1))
    if found is None:
        found = connection.scalar(asked.order_by(turn.c.asked_at.desc()).limit(1))
    return found


def make_current(connection: Connection, conversation_id: int, now_ms: int) -> None:
    """From now on, messages at its place without any reference belong to this conversation."""
    which = conversation.c.id == conversation_id
    place_id = connection.scalar(select(conversation.c.place_id).where(which))
    if place_id is not None:
        values = {"current_at": _after_all(connection, place_id, now_ms), "used_at": now_ms}
        connection.execute(update(conversation).where(which).values(values))


def move_head(connection: Connection, conversation_id: int, head_id: str | None, now_ms: int) -> None:
    """The next turn follows `head_id`; None: it is the first."""
    connection.execute(
        update(conversation)
        .where(conversation.c.id == conversation_id)
        .values(head_id=head_id, used_at=now_ms)
    )


def set_persona(connection: Connection, conversation_id: int, persona: str | None) -> None:
    """Change a conversation's system prompt; None: the place's, or the bot's own."""
    connection.execute(
        update(conversation).where(conversation.c.id == conversation_id).values(persona=persona)
    )


def _take_name(connection: Connection, old: int, new: int) -> bool:
    """Have two places change their names; False if nobody has talked at the one, or somebody at the other.

    Neither row goes: its number would be given to another place while somebody still has it.
    """
    if not _has_talk(connection, old) or _has_talk(connection, new):
        return False
    move_settings(connection, old, new)  # what is set there already goes before
    move_settings(connection, new, old)
    columns = (place.c.external_id, place.c.is_encrypted, place.c.told_at)
    (left, was_private, _), (taken, is_private, told_ms) = (
        connection.execute(select(*columns).where(place.c.id == each)).one() for each in (old, new)
    )
    is_private = is_private or was_private
    _change(connection, new, external_id="", is_encrypted=was_private, told_at=None)
    _change(connection, old, external_id=taken, is_encrypted=is_private, told_at=told_ms)
    _change(connection, new, external_id=left)  # only now: no two have one name at any time
    return True


def _has_talk(connection: Connection, place_id: int) -> bool:
    found = connection.scalar(select(conversation.c.id).where(conversation.c.place_id == place_id).limit(1))
    return found is not None


def _change(connection: Connection, place_id: int, **values: object) -> None:
    connection.execute(update(place).where(place.c.id == place_id).values(values))


def _after_all(connection: Connection, place_id: int, now_ms: int) -> int:
    """Now, or right after what became current at a place last: the clock may have been set back since."""
    newest = select(func.max(conversation.c.current_at)).where(conversation.c.place_id == place_id)
    newest_ms: int | None = connection.scalar(newest)
    return now_ms if newest_ms is None else max(now_ms, newest_ms + 1)


def _persona_around(connection: Connection, turn_id: str) -> str | None:
    """That of the conversation in which a turn was said."""
    found: str | None = connection.scalar(
        select(conversation.c.persona)
        .join(turn, turn.c.conversation_id == conversation.c.id)
        .where(turn.c.id == turn_id)
    )
    return found


_COLUMNS = (
    conversation.c.id,
    conversation.c.place_id,
    conversation.c.root,
    conversation.c.owner_id,
    conversation.c.head_id,
    conversation.c.persona,
)
_Columns = Select[int, int, str, int | None, str | None, str | None]


def _newest() -> _Columns:
    return select(*_COLUMNS).order_by(conversation.c.current_at.desc(), conversation.c.id.desc())


def _first(connection: Connection, which: _Columns) -> Conversation | None:
    row: Row[int, int, str, int | None, str | None, str | None] | None = connection.execute(
        which.limit(1)
    ).one_or_none()
    return None if row is None else Conversation(*row)
