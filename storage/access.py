"""What admins have said of people and places, and what they have done. Each is part of a transaction.

A ban is kept with the account, a rule (allow, deny) by name; of somebody who is forgotten both stay hashed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, insert, literal, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from storage.ledger import Person
from storage.schema import access_rule, account, audit, forgotten

FOR_GOOD_MS = 253_402_300_799_000
"""The last second of the year 9999."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that an admin has done."""

    actor: str
    action: str
    target: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What holds now: the rules and the bans, by `name_of` or, for those forgotten, by `hash_of`."""

    rules: Mapping[str, bool]
    banned_until_ms: Mapping[str, int]


def name_of(person: Person) -> str:
    """A person or a place in one word: `matrix:@ada:example.org`."""
    return f"{person.platform}:{person.external_id}"


def hash_of(person: Person, key: bytes) -> str:
    """What stands for the name of somebody who is forgotten."""
    return f"#{person.hashed(key).hex()}"


def what_admins_said(connection: Connection, now_ms: int) -> Said:
    """All rules, and the bans that have not ended."""
    rules = {
        row.name if row.name.startswith("#") else name_of(Person(row.platform, row.name)): row.is_allowed
        for row in connection.execute(
            select(access_rule.c.platform, access_rule.c.name, access_rule.c.is_allowed)
        )
    }
    known = select(account.c.platform, account.c.external_id, account.c.banned_until)
    hashed = select(forgotten.c.account_hash, forgotten.c.banned_until)
    bans = {
        name_of(Person(platform, external_id)): until_ms
        for platform, external_id, until_ms in connection.execute(
            known.where(account.c.banned_until > now_ms)
        )
    }
    for account_hash, until_ms in connection.execute(hashed.where(forgotten.c.banned_until > now_ms)):
        bans[f"#{account_hash.hex()}"] = until_ms
    return Said(rules, bans)


def set_rule(connection: Connection, named: Person, *, is_allowed: bool, key: bytes, now_ms: int) -> None:
    """Allow or deny a person, a place, or whatever else has a name there; the last word counts."""
    _drop_rules(connection, named, key)
    values = {"is_allowed": is_allowed, "at": now_ms}
    connection.execute(insert(access_rule).values(platform=named.platform, name=named.external_id, **values))


def inherit_rule(connection: Connection, named: Person, heir: Person, now_ms: int) -> None:
    """What was said of a place holds for the one that takes its place, unless something was said of that."""
    columns = (access_rule.c.platform, access_rule.c.name, access_rule.c.is_allowed, access_rule.c.at)
    said = select(
        literal(heir.platform), literal(heir.external_id), access_rule.c.is_allowed, literal(now_ms)
    )
    connection.execute(
        insert_or(access_rule)
        .from_select([column.name for column in columns], said.where(_names(named)))
        .on_conflict_do_nothing()
    )


def ban(connection: Connection, person: Person, until_ms: int, now_ms: int) -> None:
    """Ignore somebody until then, whether they were ever here or not."""
    values = {"platform": person.platform, "external_id": person.external_id, "created_at": now_ms}
    connection.execute(
        insert_or(account)
        .values(banned_until=until_ms, **values)
        .on_conflict_do_update(
            index_elements=[account.c.platform, account.c.external_id], set_={"banned_until": until_ms}
        )
    )


def unban(connection: Connection, person: Person, key: bytes, now_ms: int) -> bool:
    """Listen to somebody again; False if they were not banned."""
    by_name = (account.c.platform == person.platform) & (account.c.external_id == person.external_id)
    by_hash = forgotten.c.account_hash == person.hashed(key)
    ended = [
        connection.execute(
            update(table).where(which, table.c.banned_until > now_ms).values(banned_until=None)
        ).rowcount
        for table, which in ((account, by_name), (forgotten, by_hash))
    ]
    return any(ended)


def account_named(connection: Connection, person: Person) -> int | None:
    """The account of somebody who has one."""
    where = (account.c.platform == person.platform) & (account.c.external_id == person.external_id)
    found: int | None = connection.scalar(select(account.c.id).where(where))
    return found


def note_deed(connection: Connection, deed: Deed, now_ms: int) -> None:
    """Write down what an admin does, in the transaction in which it is done."""
    values = {"actor": deed.actor, "action": deed.action, "target": deed.target, "detail": deed.detail}
    connection.execute(insert(audit).values(at=now_ms, **values))


def last_deeds(connection: Connection, number: int) -> Sequence[tuple[int, Deed]]:
    """The last deeds of admins, the newest first, each with its time."""
    columns = (audit.c.at, audit.c.actor, audit.c.action, audit.c.target, audit.c.detail)
    rows = connection.execute(select(*columns).order_by(audit.c.id.desc()).limit(number))
    return [(at_ms, Deed(*rest)) for at_ms, *rest in rows]


def export_said(connection: Connection, person: Person) -> dict[str, object]:
    """What admins have said of a person, and done to them, without who it was."""
    rule = select(access_rule.c.is_allowed).where(_names(person))
    deeds = select(audit.c.at, audit.c.action, audit.c.detail).where(audit.c.target == name_of(person))
    own = select(audit.c.at, audit.c.action, audit.c.target).where(audit.c.actor == name_of(person))
    return {
        "is_allowed": connection.scalar(rule),
        "done_to_them": [dict(row) for row in connection.execute(deeds).mappings()],
        "done_by_them": [dict(row) for row in connection.execute(own).mappings()],
    }


def forget_named(connection: Connection, person: Person, key: bytes) -> None:
    """Keep rules and deeds about somebody under a hash: who was denied stays so."""
    hashed = hash_of(person, key)
    connection.execute(update(access_rule).where(_names(person)).values(name=hashed))
    for column in (audit.c.actor, audit.c.target):
        connection.execute(update(audit).where(column == name_of(person)).values({column: hashed}))


def _drop_rules(connection: Connection, named: Person, key: bytes) -> None:
    is_hash = access_rule.c.name == hash_of(named, key)
    connection.execute(delete(access_rule).where(_names(named) | is_hash))


def _names(named: Person) -> ColumnElement[bool]:
    return (access_rule.c.platform == named.platform) & (access_rule.c.name == named.external_id)
