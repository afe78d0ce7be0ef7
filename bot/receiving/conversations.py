"""Which conversation a message belongs to: the one that goes on here, a new one, or a fork of an older one.

Each function is part of one transaction.
"""

from dataclasses import dataclass

from bot.words import Where
from storage.conversations import (
    Conversation,
    Place,
    begin_conversation,
    current_conversation,
    get_conversation,
    latest_conversation,
    make_current,
    rooted_conversation,
    turn_behind,
)
from storage.database import Transaction
from storage.transcript import get_turn, last_asked


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, where, and with which message."""

    account_id: int
    place: Place
    where: Where
    event_id: str

    @property
    def root(self) -> str:
        """What the conversation is named by that begins with this message."""
        return (self.where.root or self.event_id) if self.where.kind == "group" else ""


def find_for_message(
    connection: Transaction, asker: Asker, reply_to: str, now_ms: int
) -> Conversation | None:
    """The conversation that a message goes on with; None if it begins one.

    A reply to a conversation's last answer goes on with it, one to an older answer forks it. Otherwise a chat
    of two or a thread goes on where it was, and in a channel a new conversation begins.
    """
    behind = turn_behind(connection, asker.place.place_id, reply_to) if reply_to else None
    if behind is not None:
        return _after(connection, asker, behind, now_ms)
    return find_here(connection, asker)


def find_begun(connection: Transaction, asker: Asker, since_ms: int) -> Conversation | None:
    """In a channel, where each message begins a conversation: the one that its author has begun last.

    None if that was before `since_ms`, is answered already, or they have asked something else there since.
    """
    if asker.where.kind != "group" or asker.where.root:
        return None
    latest = latest_conversation(connection, asker.place.place_id, asker.account_id)
    if latest is None:
        return None
    last = last_asked(connection, latest.conversation_id, asker.account_id, since_ms)
    return latest if last is not None and last.question.event_id == latest.root else None


def find_here(connection: Transaction, asker: Asker) -> Conversation | None:
    """The conversation that goes on at a place without being named; None where many do."""
    if asker.where.kind != "group":
        return current_conversation(connection, asker.place.place_id)
    if asker.where.root:
        return rooted_conversation(connection, asker.place.place_id, asker.where.root)
    return None


def find_for_command(connection: Transaction, asker: Asker) -> Conversation | None:
    """The conversation that a command is about: the one here, or in a channel the caller's latest."""
    here = find_here(connection, asker)
    if here is not None or asker.where.kind != "group":
        return here
    return latest_conversation(connection, asker.place.place_id, asker.account_id)


def begin(connection: Transaction, asker: Asker, now_ms: int, *, after: str | None = None) -> Conversation:
    """A new conversation, which is the current one where a place has one at a time."""
    return begin_conversation(
        connection, asker.place.place_id, asker.account_id, now_ms, root=asker.root, after=after
    )


def _after(connection: Transaction, asker: Asker, turn_id: str, now_ms: int) -> Conversation:
    said = get_turn(connection, turn_id)
    if said is None:
        return begin(connection, asker, now_ms)
    conversation = get_conversation(connection, said.question.conversation_id)
    if conversation is not None and not said.progress.answer_ids:  # there is nothing to fork behind
        make_current(connection, conversation.conversation_id, now_ms)
        return conversation
    if conversation is not None and _is_last(conversation, said.state, turn_id):
        make_current(connection, conversation.conversation_id, now_ms)
        return conversation
    return begin(connection, asker, now_ms, after=turn_id)


def _is_last(conversation: Conversation, state: str, turn_id: str) -> bool:
    """Nothing was said after this turn; or nothing is said yet, and what comes waits for it."""
    return conversation.head_id == turn_id or state in ("queued", "running")
