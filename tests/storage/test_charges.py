"""What single answers have cost: what was paid for them, as long as they are there."""

from sqlalchemy import Connection, insert

from storage.charges import Charge, last_charges
from storage.database import Database
from storage.ledger import REFUND, Turn, adjust, reserve, settle
from storage.privacy import forget_here
from storage.schema import ledger
from tests.storage.people import ADA, BOB, NOON, RATES, account_of, say, talk

MINUTE_MS = 60_000


def pay(connection: Connection, account_id: int, turn_id: str, amount: int, now_ms: int) -> None:
    """A turn costs so much."""
    reserve(connection, account_id, Turn(turn_id, 0, 300), RATES, "boot", now_ms + MINUTE_MS)
    assert settle(connection, turn_id, amount, now_ms) == amount


def answers(connection: Connection, *amounts: int) -> tuple[int, int]:
    """Ada pays for some answers, one a minute; returns her account and the conversation."""
    conversation, account_id = talk(connection), account_of(connection, ADA)
    for number, amount in enumerate(amounts):
        now_ms = NOON + number * MINUTE_MS
        say(connection, conversation, f"t{number}", now_ms=now_ms)
        pay(connection, account_id, f"t{number}", amount, now_ms)
    return account_id, conversation.conversation_id


async def test_the_newest_answers_come_first_with_when_they_were_paid(store: Database) -> None:
    def read(connection: Connection) -> list[Charge]:
        account_id, _ = answers(connection, 10, 20, 30, 40)
        return last_charges(connection, account_id, 3)

    assert await store.write(read) == [
        Charge(40, NOON + 3 * MINUTE_MS),
        Charge(30, NOON + 2 * MINUTE_MS),
        Charge(20, NOON + MINUTE_MS),
    ]


async def test_grants_and_what_others_paid_are_none(store: Database) -> None:
    def read(connection: Connection) -> tuple[list[Charge], list[Charge]]:
        account_id, _ = answers(connection, 10)
        adjust(connection, account_id, -5, "grant", NOON)
        bob = account_of(connection, BOB)
        say(connection, talk(connection, BOB, "!bob:example.org"), "b", person=BOB)
        pay(connection, bob, "b", 7, NOON)
        return last_charges(connection, account_id, 3), last_charges(connection, bob, 3)

    assert await store.write(read) == ([Charge(10, NOON)], [Charge(7, NOON)])


async def test_what_was_given_back_for_an_answer_is_not_paid(store: Database) -> None:
    def read(connection: Connection) -> list[Charge]:
        account_id, _ = answers(connection, 10, 20)
        for turn_id, amount in (("t0", 4), ("t1", 20)):
            values = {"account_id": account_id, "kind": REFUND, "amount": amount, "turn_id": turn_id}
            connection.execute(insert(ledger).values(at=NOON + 10 * MINUTE_MS, **values))
        return last_charges(connection, account_id, 3)

    assert await store.write(read) == [Charge(6, NOON)]


async def test_an_answer_that_was_forgotten_is_not_told_of(store: Database) -> None:
    def read(connection: Connection) -> list[Charge]:
        account_id, number = answers(connection, 10, 20)
        say(connection, talk(connection, room="!other:example.org"), "kept")
        pay(connection, account_id, "kept", 5, NOON)
        forget_here(connection, account_id, number)
        return last_charges(connection, account_id, 3)

    assert await store.write(read) == [Charge(5, NOON)]
