"""Which conversation a command is about: the one here, or that of the answer whose control was used."""

from bot.commands.desk import Order
from bot.receiving.conversations import find_for_command, find_here
from storage.conversations import Conversation, get_conversation
from storage.database import Transaction
from storage.transcript import get_turn, newest_turn

NAMED_TURN = "turn"
"""An argument that controls below an answer give, and nobody types: whose answer it is."""
QUOTED_LETTERS = 40
NOT_THEIRS = "Only who began this conversation, or a moderator, can do that."
NOT_LAST = "There is a newer answer in that conversation; this can be done only with the last one."


def conversation_of(connection: Transaction, order: Order) -> Conversation | None:
    """The conversation that a command is about; None if there is none, or it is not at this place."""
    turn_id = order.arguments.get(NAMED_TURN)
    if turn_id is None:
        return find_for_command(connection, order.asker)
    said = get_turn(connection, turn_id)
    found = get_conversation(connection, said.question.conversation_id) if said is not None else None
    is_here = found is not None and found.place_id == order.asker.place.place_id
    return found if is_here else None


def beginning_of(question: str) -> str:
    """So much of a question that whoever asked it knows which one is meant."""
    return f"“{' '.join(question.split())[:QUOTED_LETTERS]}”"


def which_one(connection: Transaction, order: Order) -> str:
    """In a channel, where a command is about the caller's latest conversation: which one that is; else ""."""
    if order.inbound.where.kind != "group" or find_here(connection, order.asker) is not None:
        return ""
    latest = find_for_command(connection, order.asker)
    newest = None if latest is None else newest_turn(connection, latest.conversation_id)
    return (
        "" if newest is None else f"\nThat is the conversation with {beginning_of(newest.question.prompt)}."
    )


def names_another(order: Order, turn_id: str) -> bool:
    """The control that was used is below another answer."""
    return order.arguments.get(NAMED_TURN, turn_id) != turn_id


def is_theirs(order: Order, conversation: Conversation) -> bool:
    """Whether a person may decide how a conversation goes on; anybody may if nobody owns it."""
    is_owner = conversation.owner_id in (None, order.asker.account_id)
    return is_owner or order.inbound.author.is_moderator
