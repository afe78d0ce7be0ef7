"""Admins' commands: who may use the bot, credits, sessions, and the end of the bot's work."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from bot.commands.naming import Mistaken, read_named, read_person
from bot.commands.numbers import read_whole, whole_from
from bot.commands.office import Action, Done, Office, needed
from bot.commands.reports import reports
from bot.rendering.counting import counted
from storage.access import (
    FOR_GOOD_MS,
    Deed,
    account_named,
    ban,
    last_deeds,
    name_of,
    note_deed,
    set_rule,
    unban,
)
from storage.amounts import Rates
from storage.database import Transaction
from storage.errors import QuotaExceeded
from storage.ledger import Person, Standing, adjust, grant_today, open_account, standing
from storage.live_sessions import ListedSession, kept_session, list_sessions

HOUR_MS = 3_600_000
MOST_HOURS = 24 * 366 * 10
MOST_CREDITS = 1_000_000_000_000
MOST_SESSIONS = 200
MOST_DEEDS = 50


async def allow(office: Office, arguments: Mapping[str, str]) -> Done:
    """Let a person or place past the configured lists of who is allowed."""
    named = read_named(needed(arguments, "who"))
    await _rule(office, "allow", named, is_allowed=True)
    return Done(f"`{named.external_id}` may use the bot now, unless the configuration denies it.")


async def deny(office: Office, arguments: Mapping[str, str]) -> Done:
    """Keep a person or place away, whatever allows them."""
    named = read_named(needed(arguments, "who"))
    _spare_admins(office, named)
    await _rule(office, "deny", named, is_allowed=False)
    return Done(f"`{named.external_id}` may not use the bot any more.")


async def ban_person(office: Office, arguments: Mapping[str, str]) -> Done:
    """Hear nothing of a person, for some hours or for good; what is written for them ends."""
    person, now_ms = read_person(needed(arguments, "user")), office.clock.now_ms()
    _spare_admins(office, person)
    hours = _whole(needed(arguments, "hours"), "hours", 1, MOST_HOURS) if "hours" in arguments else None
    until_ms = FOR_GOOD_MS if hours is None else now_ms + hours * HOUR_MS
    shown = "for good" if hours is None else f"for {counted(hours, 'hour')}"
    deed = office.deed("ban", name_of(person), shown)
    await office.change(deed, lambda connection: ban(connection, person, until_ms, now_ms))
    account_id = await office.store.read(account_named, person)
    if account_id is not None:
        await office.stop_turns(account_id)
    return Done(f"`{person.external_id}` is ignored {shown}.")


async def unban_person(office: Office, arguments: Mapping[str, str]) -> Done:
    """Hear a person again who was banned, or ignored for having been too fast."""
    person, now_ms = read_person(needed(arguments, "user")), office.clock.now_ms()
    was_ignored = office.access.listen_again(person.platform, person.external_id)

    def end_ban(connection: Transaction) -> bool:
        was_banned = unban(connection, person, office.hash_key, now_ms)
        if was_banned or was_ignored:
            note_deed(connection, office.deed("unban", name_of(person)), now_ms)
        return was_banned

    was_banned = await office.store.write(end_ban)
    await office.access.load(office.store)
    if not (was_banned or was_ignored):
        raise Mistaken(f"`{person.external_id}` is not ignored.")
    return Done(f"`{person.external_id}` is heard again.")


async def grant(office: Office, arguments: Mapping[str, str]) -> Done:
    """Give credits to a person, or take what is not held by answers that are being written."""
    person = read_person(needed(arguments, "user"))
    amount = _whole(needed(arguments, "credits"), "credits", -MOST_CREDITS, MOST_CREDITS)
    if not amount:
        raise Mistaken("credits is a number that is not 0, as in `admin grant @ada:example.org 5000`.")
    balance = await _add(office, person, "grant", lambda before: amount)
    done = f"{counted(abs(amount), 'credit')} {'given to' if amount > 0 else 'taken from'}"
    return Done(f"{done} `{person.external_id}`, who has {balance} now.", [_row(person, balance)])


async def set_quota(office: Office, arguments: Mapping[str, str]) -> Done:
    """Make a person's balance what is wanted; not below what is held."""
    person = read_person(needed(arguments, "user"))
    wanted = _whole(needed(arguments, "credits"), "credits", 0, MOST_CREDITS)
    balance = await _add(office, person, "set", lambda before: wanted - before)
    return Done(f"`{person.external_id}` has {counted(balance, 'credit')} now.", [_row(person, balance)])


async def show_quota(office: Office, arguments: Mapping[str, str]) -> Done:
    """How a person's account stands."""
    person, now_ms = read_person(needed(arguments, "user")), office.clock.now_ms()
    account_id = await office.store.read(account_named, person)
    if account_id is None:
        raise Mistaken(f"`{person.external_id}` has not used the bot yet.")
    stands = await office.store.write(_standing_today, account_id, office.rates, now_ms)
    left = stands.balance - stands.held
    text = f"`{person.external_id}` has {counted(left, 'credit')} left; used today: {stands.used_today}."
    if stands.held:
        text += f" {counted(stands.held, 'credit')} more are held for answers that are being written."
    row = _row(person, stands.balance) | {"held": stands.held, "used_today": stands.used_today}
    return Done(text, [row])


def _standing_today(connection: Transaction, account_id: int, rates: Rates, now_ms: int) -> Standing:
    """As its owner would find it who asked something now: with today's grant."""
    grant_today(connection, account_id, rates, now_ms)
    return standing(connection, account_id, now_ms)


async def sessions(office: Office, arguments: Mapping[str, str]) -> Done:
    """The sessions that servers hold, or may hold, for conversations; nothing of what was said."""
    now_ms = office.clock.now_ms()
    listed = await office.store.read(list_sessions, MOST_SESSIONS)
    rows = [_session_row(office, each, now_ms) for each in listed]
    lines = [
        f"{row['session']}: {row['place']}, {row['state']}, {row['tokens']} tokens, used {row['last_use']}"
        for row in rows
    ]
    return Done("\n".join(lines) or "There are no sessions.", rows)


async def kill(office: Office, arguments: Mapping[str, str]) -> Done:
    """End a session on its servers, and what is being written in it; what was said stays."""
    bot = office.running
    number = _whole(needed(arguments, "session"), "session", 1, 2**62)
    kept = await office.store.read(kept_session, number)
    if kept is None and not bot.brain.is_open(number):
        raise Mistaken(f"There is no session {number}; `admin sessions` shows which there are.")
    for turn_id in (bot.queue.running_in(number), *bot.queue.waiting_in(number)):
        if turn_id is not None:
            bot.stop(turn_id)
    await bot.brain.forget(number)
    await office.change(office.deed("kill", f"session {number}"))
    return Done(f"Session {number} has ended; the conversation goes on with a new one.")


async def drain(office: Office, arguments: Mapping[str, str]) -> Done:
    """Take no more questions, let what is being written end, and stop the bot."""
    bot = office.running
    await office.change(office.deed("drain"))
    bot.leave()
    return Done(
        "What is being written ends, then the bot stops; what is said now is answered after the next start."
    )


async def audit(office: Office, arguments: Mapping[str, str]) -> Done:
    """What admins have done last."""
    deeds = await office.store.read(last_deeds, MOST_DEEDS)
    rows = [
        {"at": _time(at_ms), "who": it.actor, "did": it.action, "target": it.target, "detail": it.detail}
        for at_ms, it in deeds
    ]
    lines = [" ".join(filter(None, row.values())) for row in rows]
    return Done("\n".join(lines) or "No admin has done anything yet.", rows)


ACTIONS: Mapping[str, Action] = {
    "admin allow": allow,
    "admin deny": deny,
    "admin ban": ban_person,
    "admin unban": unban_person,
    "admin grant": grant,
    "admin sessions": sessions,
    "admin kill": kill,
    "admin drain": drain,
    "admin reports": reports,
    "admin audit": audit,
}


# --- what they have in common ---------------------------------------------------------------------------


async def _rule(office: Office, action: str, named: Person, *, is_allowed: bool) -> None:
    key, now_ms = office.hash_key, office.clock.now_ms()

    def rule(connection: Transaction) -> None:
        set_rule(connection, named, is_allowed=is_allowed, key=key, now_ms=now_ms)

    await office.change(office.deed(action, name_of(named)), rule)


async def _add(office: Office, person: Person, action: str, change: Callable[[int], int]) -> int:
    """Change a balance by what `change` makes of it; returns the new one. Raises Mistaken."""
    now_ms = office.clock.now_ms()

    def add(connection: Transaction) -> int:
        account_id = open_account(connection, person, office.rates, office.hash_key, now_ms)
        before = standing(connection, account_id, now_ms).balance
        amount = change(before)
        if before + amount > MOST_CREDITS:
            raise Mistaken(f"{MOST_CREDITS} credits are the most that anybody can have.")
        balance = adjust(connection, account_id, amount, action, now_ms) if amount else before
        note_deed(connection, Deed(office.actor, action, name_of(person), f"{amount:+d}"), now_ms)
        return balance

    try:
        return await office.store.write(add)
    except QuotaExceeded as error:
        raise Mistaken(f"Only {counted(error.available, 'credit')} can be taken from them now.") from error


def _spare_admins(office: Office, named: Person) -> None:
    if office.access.is_admin(named.external_id):
        raise Mistaken(f"`{named.external_id}` is an admin; take them out of [bot] admins first.")


def _session_row(office: Office, session: ListedSession, now_ms: int) -> dict[str, str | int]:
    is_open = office.bot is not None and office.bot.brain.is_open(session.conversation_id)
    return {
        "session": session.conversation_id,
        "place": f"{session.platform}:{session.place}",
        "state": "live" if is_open else "detached" if session.lease_until_ms > now_ms else "parked",
        "tokens": session.tokens,
        "last_use": _time(session.used_ms),
    }


def _row(person: Person, balance: int) -> dict[str, str | int]:
    return {"user": name_of(person), "balance": balance}


def _whole(text: str, name: str, least: int, most: int) -> int:
    """A whole number that somebody typed. Raises Mistaken."""
    number = read_whole(text, least, most)
    if number is None:
        raise Mistaken(f"{name} is {whole_from(least, most)}.")
    return number


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
