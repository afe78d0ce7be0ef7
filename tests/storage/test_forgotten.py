"""Forgetting a person: they get nothing twice, keep what is left of the day, and a hash stays for as long."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from storage.access import ban
from storage.amounts import DAY_MS, period_of
from storage.database import Database, open_database
from storage.forgotten import purge_forgotten
from storage.ledger import (
    EARLIER,
    Standing,
    Turn,
    adjust,
    check,
    forget,
    heartbeat,
    open_account,
    reserve,
    settle,
    standing,
    usage_to_keep,
)
from storage.schema import account, forgotten, ledger
from tests.storage.people import ADA, KEY, NOON, RATES, account_of, upgrade_to

MIDNIGHT = NOON + DAY_MS // 2


def use(connection: Connection, turn_id: str, amount: int, now_ms: int = NOON) -> None:
    """Ada has a turn that costs so much."""
    ada = account_of(connection, ADA, now_ms)
    reserve(connection, ada, Turn(turn_id, 0, amount), RATES, "boot", now_ms + 60_000)
    settle(connection, turn_id, amount, now_ms)


def be_forgotten(connection: Connection, now_ms: int = NOON) -> None:
    forget(connection, account_of(connection, ADA, now_ms), KEY, now_ms)


def stands(connection: Connection, now_ms: int = NOON) -> Standing:
    return standing(connection, account_of(connection, ADA, now_ms), now_ms)


async def left(store: Database, now_ms: int = NOON) -> int:
    """What Ada may use, the books being true."""
    found = await store.write(stands, now_ms)
    assert await store.read(check) == []
    return found.balance


async def test_behaviour_22_who_used_ten_of_a_thousand_has_the_rest_after_being_forgotten(
    store: Database,
) -> None:
    await store.write(use, "t1", 10)
    await store.write(be_forgotten)
    assert await left(store) == 990
    assert await left(store) == 990, "however often they come"
    found = await store.write(stands)
    assert (found.used_today, found.used_earlier) == (10, 10)


async def test_behaviour_22_whoever_is_forgotten_again_and_again_never_has_more(store: Database) -> None:
    for number in range(5):
        await store.write(use, f"t{number}", 100)
        await store.write(be_forgotten)
        assert await left(store) == 1000 - 100 * (number + 1)
        await store.write(be_forgotten)  # without having used anything
    assert await left(store) == 500


async def test_what_was_saved_from_earlier_days_goes_with_the_account(store: Database) -> None:
    await left(store, NOON - DAY_MS)
    assert await left(store) == 1500
    await store.write(use, "t", 1200)
    await store.write(be_forgotten)
    assert await left(store) == 0, "more was used than a day grants"
    await store.write(lambda c: adjust(c, account_of(c, ADA), 500, "grant", NOON))
    await store.write(use, "t2", 300)
    await store.write(be_forgotten)
    assert await left(store) == 0, "of 1500 that were used an admin gave 500, and a day grants 1000"


@pytest.mark.parametrize(
    ("given", "used", "kept"),
    [(0, 10, 10), (300, 300, 0), (300, 310, 10), (300, 10, 0), (-600, 10, 610)],
)
async def test_what_people_are_told_is_what_is_kept_and_what_admins_gave_is_used_first(
    store: Database, given: int, used: int, kept: int
) -> None:
    if given:
        await store.write(lambda c: adjust(c, account_of(c, ADA), given, "grant", NOON))
    await store.write(use, "t", used)
    ada = await store.write(account_of, ADA)
    assert await store.read(usage_to_keep, ada, KEY, NOON) == kept
    await store.write(be_forgotten)
    assert await store.read(lambda c: c.scalars(select(forgotten.c.used)).all()) == [kept]
    assert await left(store) == 1000 - kept


async def test_behaviour_22_who_was_forgotten_before_an_upgrade_and_after_it_is_granted_the_day_once(
    tmp_path: Path,
) -> None:
    path, today = tmp_path / "murmur.db", period_of(NOON)
    upgrade_to(path, "0003")
    with sqlite3.connect(path) as connection:
        row = (ADA.platform, ADA.external_id, NOON)
        connection.execute("INSERT INTO account (platform, external_id, created_at) VALUES (?, ?, ?)", row)
        entry = "INSERT INTO ledger (account_id, kind, amount, period, at) VALUES (1, 'daily', 0, ?, ?)"
        connection.execute(entry, (today, NOON))
        connection.execute("INSERT INTO forgotten VALUES (?, ?, 1000, NULL)", (ADA.hashed(KEY), today))
    connection.close()
    async with open_database(path) as store:
        for _ in range(3):
            assert await left(store) == 0
            await store.write(be_forgotten)


async def test_what_an_admin_took_today_stays_taken(store: Database) -> None:
    await store.write(lambda c: adjust(c, account_of(c, ADA), -600, "grant", NOON))
    await store.write(be_forgotten)
    assert await left(store) == 400


async def test_what_a_running_turn_had_cost_when_it_was_last_heard_of_counts(store: Database) -> None:
    def run(connection: Connection) -> None:
        reserve(connection, account_of(connection, ADA), Turn("t", 0, 100), RATES, "boot", NOON)
        heartbeat(connection, "t", 70, NOON)

    await store.write(run)
    await store.write(be_forgotten)
    assert await left(store) == 930


async def test_a_ban_of_somebody_who_was_forgotten_does_not_make_us_forget_what_they_used(
    store: Database,
) -> None:
    def banned_and_forgotten(connection: Connection) -> None:
        ban(connection, ADA, NOON + 60_000, NOON)  # makes an account that nobody has looked into
        forget(connection, connection.execute(select(account.c.id)).scalar_one(), KEY, NOON)

    await store.write(use, "t", 10)
    await store.write(be_forgotten)
    await store.write(banned_and_forgotten)
    assert await left(store) == 990


async def test_the_next_day_is_granted_in_full(store: Database) -> None:
    await store.write(use, "t", 900, MIDNIGHT - 1)
    await store.write(be_forgotten, MIDNIGHT - 1)
    assert await left(store, MIDNIGHT) == 1000
    found = await store.write(stands, MIDNIGHT)
    assert (found.used_today, found.used_earlier) == (0, 0)


async def test_the_hash_goes_when_the_day_is_over_unless_there_is_a_ban(store: Database) -> None:
    def kept(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(forgotten)).scalar_one()

    await store.write(use, "t", 10)
    await store.write(be_forgotten)
    assert await store.write(purge_forgotten, MIDNIGHT - 1) == 0
    assert await store.write(purge_forgotten, MIDNIGHT) == 1
    await store.write(lambda c: ban(c, ADA, MIDNIGHT + 60_000, NOON))
    await store.write(be_forgotten)
    assert await store.write(purge_forgotten, MIDNIGHT) == 0
    assert await store.read(kept) == 1
    assert await store.write(purge_forgotten, MIDNIGHT + 60_000) == 1


async def test_behaviour_20_of_two_processes_that_see_somebody_again_one_takes_off_what_was_used(
    tmp_path: Path, empty_store: Path
) -> None:
    path = tmp_path / "murmur.db"
    shutil.copy(empty_store, path)
    async with open_database(path, is_alone=False) as one, open_database(path, is_alone=False) as other:
        await one.write(use, "t", 400)
        await one.write(be_forgotten)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                for store in (one, other):
                    group.create_task(store.write(open_account, ADA, RATES, KEY, NOON))
        entries = await other.read(lambda c: c.execute(select(ledger.c.kind, ledger.c.amount)).all())
        assert sorted(map(tuple, entries)) == [("daily", 1000), (EARLIER, -400)]
        assert [await left(store) for store in (one, other)] == [600, 600]
