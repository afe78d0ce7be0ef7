"""What a turn was charged for text that nobody saw is given back, once."""

from sqlalchemy import Connection, select

from storage.amounts import DAY_MS
from storage.charges import Charge, last_charges
from storage.database import Database
from storage.ledger import Turn, check, forget, refund, reserve, settle, standing
from storage.schema import ledger
from tests.storage.people import ADA, KEY, NOON, RATES, account_of, say, talk


def pay(connection: Connection, turn_id: str = "t", amount: int = 100) -> int:
    """Ada pays for a turn; returns her account."""
    ada = account_of(connection, ADA)
    reserve(connection, ada, Turn(turn_id, 0, 400), RATES, "boot", NOON)
    settle(connection, turn_id, amount, NOON)
    return ada


async def test_behaviour_21_what_nobody_saw_is_given_back_once(store: Database) -> None:
    ada = await store.write(pay)
    assert [await store.write(refund, "t", 30, NOON) for _ in range(3)] == [70, 0, 0]
    assert await store.write(refund, "t", 0, NOON) == 0, "it was decided how much that is"
    found = await store.read(standing, ada, NOON)
    assert (found.balance, found.used_today) == (970, 30)
    entries = await store.read(lambda c: c.execute(select(ledger.c.kind, ledger.c.amount)).all())
    assert [tuple(entry) for entry in entries] == [("daily", 1000), ("charge", -100), ("refund", 70)]
    assert await store.read(check) == []


async def test_nothing_is_given_back_that_was_not_paid(store: Database) -> None:
    ada = await store.write(pay)
    assert await store.write(refund, "t", 100, NOON) == 0
    assert await store.write(refund, "t", 250, NOON) == 0
    assert await store.write(refund, "another turn", 0, NOON) == 0
    assert (await store.read(standing, ada, NOON)).balance == 900
    assert await store.read(check) == []


async def test_a_turn_that_got_its_charge_back_is_not_charged_again(store: Database) -> None:
    ada = await store.write(pay)
    await store.write(refund, "t", 0, NOON)
    await store.write(pay)
    assert (await store.read(standing, ada, NOON)).balance == 1000
    assert await store.read(check) == []


async def test_of_somebody_who_was_forgotten_meanwhile_nothing_is_given_back(store: Database) -> None:
    ada = await store.write(pay)
    await store.write(forget, ada, KEY, NOON)
    assert await store.write(refund, "t", 0, NOON) == 0
    assert await store.read(check) == []


async def test_what_is_given_back_on_the_next_day_makes_nobody_have_used_less_than_nothing(
    store: Database,
) -> None:
    ada = await store.write(pay)
    tomorrow = NOON + DAY_MS
    await store.write(refund, "t", 0, tomorrow)
    assert (await store.read(standing, ada, tomorrow)).used_today == 0


async def test_the_last_answers_have_cost_what_was_not_given_back(store: Database) -> None:
    def live(connection: Connection) -> int:
        conversation = talk(connection)
        for number, amount in enumerate((10, 20, 30)):
            pay(connection, say(connection, conversation, f"t{number}"), amount)
        refund(connection, "t1", 15, NOON)
        refund(connection, "t2", 0, NOON)
        return account_of(connection, ADA)

    ada = await store.write(live)
    assert await store.read(last_charges, ada, 3) == [Charge(15, NOON), Charge(10, NOON)]
