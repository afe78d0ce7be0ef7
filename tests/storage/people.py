"""People and places for the tests of the store."""

from sqlalchemy import Connection

from storage.amounts import DAY_MS, Rates
from storage.conversations import Conversation, begin_conversation, open_place
from storage.ledger import Person, open_account
from storage.transcript import Progress, Question, ask, end, start

RATES = Rates(daily_grant=1000, balance_cap=1500, prefill_percent=25, least_new_tokens=64)
ADA = Person("matrix", "@ada:example.org")
BOB = Person("matrix", "@bob:example.org")
KEY = b"k" * 32
NOON = 20_000 * DAY_MS + DAY_MS // 2


def account_of(connection: Connection, person: Person, now_ms: int = NOON) -> int:
    """The person's account, with today's grant."""
    return open_account(connection, person, RATES, KEY, now_ms)


def talk(
    connection: Connection, person: Person = ADA, room: str = "!room:example.org", *, now_ms: int = NOON
) -> Conversation:
    """A new conversation of theirs in a room."""
    place = open_place(connection, "matrix", room, now_ms)
    return begin_conversation(connection, place.place_id, account_of(connection, person, now_ms), now_ms)


def say(
    connection: Connection,
    conversation: Conversation,
    turn_id: str,
    *,
    person: Person = ADA,
    now_ms: int = NOON,
) -> str:
    """A turn of theirs, from its question to its answer; returns its id."""
    account_id = account_of(connection, person, now_ms)
    question = Question(
        turn_id, conversation.conversation_id, account_id, f"question {turn_id}", f"${turn_id}"
    )
    ask(connection, question, now_ms)
    start(connection, turn_id, "model", now_ms)
    end(
        connection,
        turn_id,
        "done",
        now_ms,
        Progress(f"answer {turn_id}", (1, 2, 3), (4, 5), prefill_tokens=3, new_tokens=2),
    )
    return turn_id
