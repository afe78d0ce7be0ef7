"""The ledger: nothing is charged twice or overspent, and what is held comes back."""

import pytest
from sqlalchemy import Connection, func, select

from storage.amounts import DAY_MS, Rates
from storage.database import Database
from storage.errors import QuotaExceeded
from storage.ledger import (
    Person,
    Reservation,
    Standing,
    Turn,
    adjust,
    check,
    forget,
    heartbeat,
    open_account,
    reserve,
    settle,
    settle_dead,
    settle_expired,
    standing,
)
from storage.schema import account, forgotten, ledger

RATES = Rates(daily_grant=1000, balance_cap=1500, prefill_percent=25, least_new_tokens=64)
ADA = Person("matrix", "@ada:example.org")
KEY = b"k" * 32
NOON = 20_000 * DAY_MS + DAY_MS // 2
LATER = NOON + 60_000


def ada(connection: Connection, now_ms: int = NOON) -> int:
    return open_account(connection, ADA, RATES, KEY, now_ms)


def standing_of(connection: Connection, now_ms: int = NOON) -> Standing:
    return standing(connection, ada(connection, now_ms), now_ms)


def reserved(connection: Connection, turn: str = "t", new: int = 400, prefill: int = 40) -> Reservation:
    return reserve(connection, ada(connection), Turn(turn, prefill, new), RATES, "boot", LATER)


async def held_true(store: Database) -> None:
    assert await store.read(check) == []


async def test_a_turn_holds_what_it_may_cost_and_pays_what_it_did(store: Database) -> None:
    assert await store.write(reserved) == Reservation(410, 400)
    assert await store.write(standing_of) == Standing(1000, 410, 0, NOON + DAY_MS // 2)
    assert await store.write(settle, "t", 110, NOON) == 110
    assert await store.write(standing_of) == Standing(890, 0, 110, NOON + DAY_MS // 2)
    await held_true(store)


async def test_behaviour_20_a_turn_is_settled_once_however_often_it_is_asked_for(store: Database) -> None:
    await store.write(reserved)
    assert [await store.write(settle, "t", 100, NOON) for _ in range(3)] == [100, None, None]
    await store.write(reserved)  # the same turn again, as after a restart that did not know of its charge
    assert await store.write(settle, "t", 5, NOON) == 0
    assert (await store.write(standing_of)).balance == 900
    await held_true(store)


async def test_a_turn_that_asks_twice_gets_the_hold_that_it_has(store: Database) -> None:
    assert await store.write(reserved) == await store.write(reserved)
    assert (await store.write(standing_of)).held == 410


async def test_a_turn_never_pays_more_than_it_holds(store: Database) -> None:
    await store.write(reserved)
    assert await store.write(settle, "t", 10_000, NOON) == 410
    await held_true(store)


async def test_behaviour_21_a_turn_that_showed_nothing_is_free_and_leaves_no_entry(store: Database) -> None:
    await store.write(reserved)
    assert await store.write(settle, "t", 0, NOON) == 0
    kinds = await store.read(lambda c: list(c.scalars(select(ledger.c.kind))))
    assert kinds == ["daily"]


async def test_a_turn_is_cut_to_what_is_left_and_refused_below_the_least(store: Database) -> None:
    await store.write(reserved, "first", new=800, prefill=0)
    assert await store.write(reserved, "second", new=800, prefill=40) == Reservation(200, 190)
    with pytest.raises(QuotaExceeded) as refusal:
        await store.write(reserved, "third", new=800, prefill=40)
    assert (refusal.value.available, refusal.value.needed) == (0, 74)
    await held_true(store)


async def test_behaviour_22_a_day_is_granted_once_and_up_to_the_cap(store: Database) -> None:
    for _ in range(3):
        assert (await store.write(standing_of)).balance == 1000
    tomorrow = NOON + DAY_MS
    assert (await store.write(standing_of, tomorrow)).balance == 1500
    assert (await store.write(standing_of, tomorrow + DAY_MS)).balance == 1500
    before_midnight = NOON + DAY_MS // 2 - 1
    assert (await store.write(standing_of, before_midnight)).next_grant_ms == before_midnight + 1
    await held_true(store)


async def test_credits_can_be_given_and_taken_but_not_those_that_are_held(store: Database) -> None:
    await store.write(reserved)
    assert await store.write(lambda c: adjust(c, ada(c), 50, "admin", NOON)) == 1050
    with pytest.raises(QuotaExceeded):
        await store.write(lambda c: adjust(c, ada(c), -641, "admin", NOON))
    assert await store.write(lambda c: adjust(c, ada(c), -640, "admin", NOON)) == 410
    await held_true(store)


async def test_holds_of_a_dead_process_are_settled_at_their_last_heartbeat(store: Database) -> None:
    await store.write(reserved)
    assert await store.write(heartbeat, "t", 60, LATER)
    assert await store.write(heartbeat, "t", 30, LATER), "a late one lowers nothing"
    assert await store.write(settle_dead, "boot", NOON) == []
    assert await store.write(settle_dead, "next boot", NOON) == ["t"]
    assert not await store.write(heartbeat, "t", 70, LATER)
    assert await store.write(standing_of) == Standing(940, 0, 60, NOON + DAY_MS // 2)
    await held_true(store)


async def test_behaviour_21_holds_that_are_not_heard_of_in_time_are_settled(store: Database) -> None:
    await store.write(reserved)
    assert await store.write(settle_expired, LATER) == []
    assert await store.write(settle_expired, LATER + 1) == ["t"]
    assert (await store.write(standing_of)).held == 0
    await held_true(store)


async def test_to_be_forgotten_leaves_no_name_and_neither_refills_nor_takes_anything(store: Database) -> None:
    await store.write(reserved)
    await store.write(settle, "t", 400, NOON)
    for _ in range(2):
        await store.write(lambda c: forget(c, ada(c), KEY, NOON))
    assert await store.read(lambda c: c.scalar(select(func.count()).select_from(account))) == 0
    (row,) = await store.read(lambda c: c.execute(select(forgotten)).all())
    assert (row.account_hash, row.used) == (ADA.hashed(KEY), 400)
    assert await store.write(standing_of) == Standing(600, 0, 400, NOON + DAY_MS // 2, used_earlier=400)
    assert await store.write(standing_of, NOON + DAY_MS) == Standing(1500, 0, 0, NOON + 3 * DAY_MS // 2)
    await held_true(store)
