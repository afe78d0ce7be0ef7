"""What admins have said and done, in the store."""

import json

from sqlalchemy import Connection, select

from storage.access import (
    FOR_GOOD_MS,
    Deed,
    account_named,
    ban,
    hash_of,
    last_deeds,
    name_of,
    note_deed,
    set_rule,
    unban,
    what_admins_said,
)
from storage.database import Database
from storage.ledger import Person, check, standing
from storage.privacy import export_person, forget_person
from storage.schema import account
from tests.storage.people import ADA, BOB, KEY, NOON, account_of
from tests.storage.test_privacy import traces

ROOM = Person("matrix", "!room:example.org")


async def test_somebody_who_was_never_here_can_be_banned_and_gets_their_grant_later(store: Database) -> None:
    await store.write(ban, ADA, FOR_GOOD_MS, NOON)
    said = await store.read(what_admins_said, NOON)
    assert said.banned_until_ms == {name_of(ADA): FOR_GOOD_MS}
    assert (await store.read(standing, await store.write(account_of, ADA), NOON)).balance == 1000
    assert await store.read(lambda c: c.scalar(select(account.c.banned_until))) == FOR_GOOD_MS
    assert await store.read(check) == []


async def test_a_ban_that_is_over_is_none(store: Database) -> None:
    await store.write(ban, ADA, NOON + 1000, NOON)
    assert (await store.read(what_admins_said, NOON + 1000)).banned_until_ms == {}
    assert not await store.write(unban, ADA, KEY, NOON + 1000)
    assert await store.write(unban, ADA, KEY, NOON)
    assert not await store.write(unban, ADA, KEY, NOON)


async def test_the_last_rule_about_somebody_counts(store: Database) -> None:
    def rule(connection: Connection, is_allowed: bool) -> None:
        for named in (ADA, ROOM):
            set_rule(connection, named, is_allowed=is_allowed, key=KEY, now_ms=NOON)

    for is_allowed in (True, False, True):
        await store.write(rule, is_allowed)
        said = await store.read(what_admins_said, NOON)
        assert said.rules == {name_of(ADA): is_allowed, name_of(ROOM): is_allowed}


async def test_behaviour_28_what_admins_said_of_somebody_forgotten_is_kept_without_their_name(
    store: Database,
) -> None:
    def said_of_ada(connection: Connection) -> int:
        ada = account_of(connection, ADA)
        set_rule(connection, ADA, is_allowed=False, key=KEY, now_ms=NOON)
        ban(connection, ADA, FOR_GOOD_MS, NOON)
        note_deed(connection, Deed(name_of(BOB), "ban", name_of(ADA), "for good"), NOON)
        note_deed(connection, Deed(name_of(ADA), "drain"), NOON)
        return ada

    ada = await store.write(said_of_ada)
    exported = json.dumps((await store.read(export_person, ada))["admins"])
    assert "for good" in exported
    assert "drain" in exported
    assert BOB.external_id not in exported, "who did it is somebody else's"
    await store.write(forget_person, ada, KEY, NOON)
    assert await store.read(traces) == set()
    said, hashed = await store.read(what_admins_said, NOON), hash_of(ADA, KEY)
    assert (said.rules, said.banned_until_ms) == ({hashed: False}, {hashed: FOR_GOOD_MS})
    assert {(it.actor, it.target) for _, it in await store.read(last_deeds, 9)} == {
        (name_of(BOB), hashed),
        (hashed, ""),
    }


async def test_a_new_rule_takes_the_place_of_one_about_somebody_forgotten(store: Database) -> None:
    def twice(connection: Connection) -> None:
        set_rule(connection, ADA, is_allowed=False, key=KEY, now_ms=NOON)
        forget_person(connection, account_of(connection, ADA), KEY, NOON)
        set_rule(connection, ADA, is_allowed=True, key=KEY, now_ms=NOON)

    await store.write(twice)
    assert (await store.read(what_admins_said, NOON)).rules == {name_of(ADA): True}
    assert await store.read(account_named, ADA) is None


async def test_somebody_denied_is_forgotten_twice_without_a_mistake(store: Database) -> None:
    def forget(connection: Connection) -> None:
        set_rule(connection, ADA, is_allowed=False, key=KEY, now_ms=NOON)
        forget_person(connection, account_of(connection, ADA), KEY, NOON)

    for _ in range(2):
        await store.write(forget)
    assert (await store.read(what_admins_said, NOON)).rules == {hash_of(ADA, KEY): False}


async def test_the_last_deeds_come_first(store: Database) -> None:
    def work(connection: Connection) -> None:
        for number in range(5):
            note_deed(connection, Deed("operator", "kill", f"session {number}"), NOON + number)

    await store.write(work)
    assert [(at - NOON, it.target) for at, it in await store.read(last_deeds, 2)] == [
        (4, "session 4"),
        (3, "session 3"),
    ]
