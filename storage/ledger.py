"""What accounts may spend and have spent. Each function is one transaction for `Database.write` or `read`.

The ledger is append-only and the balance is its sum. A turn reserves what it may cost at most, says now and
then what it has cost so far, and settles once. Write transactions are immediate, so that what one reads holds
until it ends, and the table's own check refuses a balance below what is held.
"""

import hashlib
import hmac
from dataclasses import dataclass

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from storage.amounts import DAY_MS, Rates, affordable_tokens, charge, grant, next_period_ms, period_of
from storage.errors import QuotaExceeded
from storage.forgotten import keep_usage, usage_before
from storage.schema import account, forgotten, hold, ledger

DAILY = "daily"
CHARGE = "charge"
REFUND = "refund"
EARLIER = "earlier"
"""What somebody had used today when they were forgotten: the day's grant is smaller by that."""
USED = (CHARGE, REFUND, EARLIER)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody on a platform, as that platform names them."""

    platform: str
    external_id: str

    def hashed(self, key: bytes) -> bytes:
        """What is kept of a person who is forgotten: no name without the key."""
        return hmac.digest(key, f"{self.platform}\0{self.external_id}".encode(), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn asks for: tokens to read that are new to the session, and how many to write at most."""

    turn_id: str
    prefill_tokens: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a turn has got. `max_new_tokens` may be fewer than it asked for."""

    amount: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands, in credits."""

    balance: int
    held: int
    used_today: int
    next_grant_ms: int
    used_earlier: int = 0
    """Of what was used today: before this person was forgotten."""


def open_account(connection: Connection, person: Person, rates: Rates, key: bytes, now_ms: int) -> int:
    """The account of `person`, made if need be, with today's grant. Returns its id."""
    hashed = person.hashed(key)
    banned = select(forgotten.c.banned_until).where(forgotten.c.account_hash == hashed).scalar_subquery()
    values = {"platform": person.platform, "external_id": person.external_id, "created_at": now_ms}
    connection.execute(insert_or(account).values(banned_until=banned, **values).on_conflict_do_nothing())
    where = (account.c.platform == person.platform) & (account.c.external_id == person.external_id)
    account_id = int(connection.execute(select(account.c.id).where(where)).scalar_one())
    if grant_today(connection, account_id, rates, now_ms):
        period = period_of(now_ms)
        used = min(usage_before(connection, hashed, period), _available(connection, account_id))
        if used:
            _enter(connection, account_id, EARLIER, -used, now_ms, period=period)
    return account_id


def grant_today(connection: Connection, account_id: int, rates: Rates, now_ms: int) -> bool:
    """Give an account today's grant; False if it has that already.

    Of one that is older than today nothing is taken off: its owner was not forgotten today.
    """
    balance = connection.execute(select(account.c.balance).where(account.c.id == account_id)).scalar_one()
    granted = grant(rates, balance)
    return _enter(connection, account_id, DAILY, granted, now_ms, period=period_of(now_ms))


def was_person_told(connection: Connection, account_id: int) -> bool:
    """Somebody was told who can read what they write."""
    return connection.scalar(select(account.c.told_at).where(account.c.id == account_id)) is not None


def note_person_told(connection: Connection, account_id: int, now_ms: int) -> None:
    """Note that somebody was told who can read what they write."""
    connection.execute(
        update(account).where(account.c.id == account_id, account.c.told_at.is_(None)).values(told_at=now_ms)
    )


def adjust(connection: Connection, account_id: int, amount: int, kind: str, now_ms: int) -> int:
    """Give (or take, down to what is held) credits; returns the new balance. Raises QuotaExceeded."""
    row = connection.execute(
        update(account)
        .where(account.c.id == account_id, account.c.balance + amount >= account.c.held)
        .values(balance=account.c.balance + amount)
        .returning(account.c.balance)
    )
    balance = row.scalar_one_or_none()
    if balance is None:
        raise QuotaExceeded(_available(connection, account_id), -amount)
    connection.execute(insert(ledger).values(account_id=account_id, kind=kind, amount=amount, at=now_ms))
    return int(balance)


def reserve(
    connection: Connection, account_id: int, turn: Turn, rates: Rates, boot: str, expires_ms: int
) -> Reservation:
    """Hold what `turn` may cost at most, or as much as is left. Raises QuotaExceeded if that is too little.

    A turn that has a hold already gets another in its place.
    """
    _release(connection, turn.turn_id)
    available = _available(connection, account_id)
    new_tokens = affordable_tokens(
        rates, available, prefill_tokens=turn.prefill_tokens, max_new_tokens=turn.max_new_tokens
    )
    wanted = new_tokens or min(rates.least_new_tokens, turn.max_new_tokens)
    amount = charge(rates, new_tokens=wanted, prefill_tokens=turn.prefill_tokens)
    if not new_tokens:
        raise QuotaExceeded(available, amount)
    connection.execute(
        insert(hold).values(
            turn_id=turn.turn_id, account_id=account_id, amount=amount, boot=boot, expires_at=expires_ms
        )
    )
    connection.execute(update(account).where(account.c.id == account_id).values(held=account.c.held + amount))
    return Reservation(amount, new_tokens)


def _release(connection: Connection, turn_id: str) -> None:
    """Give a hold back, if there is one."""
    row = connection.execute(
        delete(hold).where(hold.c.turn_id == turn_id).returning(hold.c.account_id, hold.c.amount)
    ).one_or_none()
    if row is not None:
        connection.execute(
            update(account).where(account.c.id == row.account_id).values(held=account.c.held - row.amount)
        )


def heartbeat(connection: Connection, turn_id: str, spent: int, expires_ms: int) -> bool:
    """Note what a turn has cost so far, never less than before; False if its hold is gone."""
    found = connection.execute(
        update(hold)
        .where(hold.c.turn_id == turn_id)
        .values(spent=func.max(hold.c.spent, func.min(hold.c.amount, spent)), expires_at=expires_ms)
    )
    return bool(found.rowcount)


def settle(connection: Connection, turn_id: str, spent: int, now_ms: int) -> int | None:
    """Charge a turn what it has cost, at most its hold, and give the rest back.

    Returns the charge; None if the turn has no hold any more, as when it was settled before. A turn that was
    charged before and then held again is not charged a second time.
    """
    row = (
        connection.execute(
            delete(hold).where(hold.c.turn_id == turn_id).returning(hold.c.account_id, hold.c.amount)
        )
    ).one_or_none()
    if row is None:
        return None
    account_id, amount = row
    charged = max(0, min(spent, amount))
    if charged:
        values = {"account_id": account_id, "kind": CHARGE, "amount": -charged, "turn_id": turn_id}
        entered = connection.execute(insert_or(ledger).values(at=now_ms, **values).on_conflict_do_nothing())
        charged *= entered.rowcount
    connection.execute(
        update(account)
        .where(account.c.id == account_id)
        .values(balance=account.c.balance - charged, held=account.c.held - amount)
    )
    return int(charged)


def refund(connection: Connection, turn_id: str, spent: int, now_ms: int) -> int:
    """Give back, once, what a turn was charged beyond `spent`; returns how much that is."""
    which = (ledger.c.turn_id == turn_id) & (ledger.c.kind == CHARGE)
    row = connection.execute(select(ledger.c.account_id, ledger.c.amount).where(which)).one_or_none()
    back = 0 if row is None else -row.amount - spent
    if row is None or back <= 0:
        return 0
    return back if _enter(connection, row.account_id, REFUND, back, now_ms, turn_id=turn_id) else 0


def settle_dead(connection: Connection, boot: str, now_ms: int) -> list[str]:
    """Settle, at its last heartbeat, every hold of another boot. Only the lock's holder may ask for this.

    Returns the turns, whose half messages are to be finished.
    """
    return _settle_all(connection, select(hold.c.turn_id, hold.c.spent).where(hold.c.boot != boot), now_ms)


def settle_expired(connection: Connection, now_ms: int) -> list[str]:
    """Settle, at its last heartbeat, every hold that was not heard of in time; returns the turns."""
    late = select(hold.c.turn_id, hold.c.spent).where(hold.c.expires_at < now_ms)
    return _settle_all(connection, late, now_ms)


def standing(connection: Connection, account_id: int, now_ms: int) -> Standing:
    """How an account stands."""
    sums = _sums_of_today(connection, account_id, now_ms)
    used = -sum(sums.get(kind, 0) for kind in USED)
    own = select(account.c.balance, account.c.held).where(account.c.id == account_id)
    balance, held = connection.execute(own).one()
    return Standing(balance, held, max(0, used), next_period_ms(now_ms), -sums.get(EARLIER, 0))


def usage_to_keep(connection: Connection, account_id: int, key: bytes, now_ms: int) -> int:
    """What counts as used today once somebody is forgotten; what admins gave today is used first.

    What was kept when they were forgotten before, on the same day, counts whole: the entry that took it off
    the grant may be smaller, or not there.
    """
    row = connection.execute(select(account).where(account.c.id == account_id)).one()
    before = usage_before(connection, Person(row.platform, row.external_id).hashed(key), period_of(now_ms))
    sums = _sums_of_today(connection, account_id, now_ms)
    since = sum(amount for kind, amount in sums.items() if kind not in (DAILY, EARLIER))
    return max(0, before - since)


def forget(connection: Connection, account_id: int, key: bytes, now_ms: int) -> None:
    """Delete an account, its ledger and its holds; `usage_to_keep` is kept by a hash of its owner."""
    own = select(hold.c.turn_id, hold.c.spent).where(hold.c.account_id == account_id)
    _settle_all(connection, own, now_ms)
    row = (connection.execute(select(account).where(account.c.id == account_id))).one()
    used = usage_to_keep(connection, account_id, key, now_ms)
    hashed = Person(row.platform, row.external_id).hashed(key)
    keep_usage(connection, hashed, period_of(now_ms), used, row.banned_until)
    connection.execute(delete(ledger).where(ledger.c.account_id == account_id))
    connection.execute(delete(account).where(account.c.id == account_id))


def check(connection: Connection) -> list[str]:
    """Compare every account with its ledger and its holds; returns a sentence for each that is wrong."""
    sums = [
        select(func.coalesce(func.sum(table.c.amount), 0)).where(table.c.account_id == account.c.id)
        for table in (ledger, hold)
    ]
    rows = connection.execute(
        select(account.c.id, account.c.balance, account.c.held, *(each.scalar_subquery() for each in sums))
    )
    return [
        f"account {number}: balance {balance}, ledger {booked}; held {held}, holds {holds}"
        for number, balance, held, booked, holds in rows
        if (balance, held) != (booked, holds)
    ]


def _enter(connection: Connection, account_id: int, kind: str, amount: int, now_ms: int, **once: str) -> bool:
    """Add credits, once for a `period` or a `turn_id`; False if they were added before."""
    values = {"account_id": account_id, "kind": kind, "amount": amount, "at": now_ms, **once}
    added = connection.execute(insert_or(ledger).values(values).on_conflict_do_nothing())
    if added.rowcount:
        connection.execute(
            update(account).where(account.c.id == account_id).values(balance=account.c.balance + amount)
        )
    return bool(added.rowcount)


def _sums_of_today(connection: Connection, account_id: int, now_ms: int) -> dict[str, int]:
    """What an account's entries of today come to, by their kind."""
    which = (ledger.c.account_id == account_id) & (ledger.c.at >= next_period_ms(now_ms) - DAY_MS)
    rows = connection.execute(
        select(ledger.c.kind, func.sum(ledger.c.amount)).where(which).group_by(ledger.c.kind)
    )
    return {kind: int(amount) for kind, amount in rows}


def _available(connection: Connection, account_id: int) -> int:
    left = select(account.c.balance - account.c.held).where(account.c.id == account_id)
    return int((connection.execute(left)).scalar_one())


def _settle_all(connection: Connection, which: Select[str, int], now_ms: int) -> list[str]:
    rows = (connection.execute(which)).all()
    for turn_id, spent in rows:
        settle(connection, turn_id, spent, now_ms)
    return [turn_id for turn_id, _ in rows]
