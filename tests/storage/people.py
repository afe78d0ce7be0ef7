"""People, places and stores of earlier versions for the tests of the store."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from storage.amounts import DAY_MS, Rates
from storage.conversations import Conversation, begin_conversation, open_place
from storage.engines import migrating_engine
from storage.ledger import Person, open_account
from storage.migrating import MIGRATIONS
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


def upgrade_to(path: Path, revision: str) -> None:
    """Make a store as an earlier version left it."""
    engine, config = migrating_engine(path), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
