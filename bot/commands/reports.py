"""Answers that are not right: anybody reports them, admins are told and look at them.

Of what was said nothing is copied: whoever may read the place finds the message there.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from bot.commands.desk import CommandDesk, Order
from bot.commands.named import NAMED_TURN
from bot.commands.naming import Mistaken, read_person
from bot.commands.office import Done, Office
from bot.receiving.conversations import find_here
from bot.sending.outbound import Writes
from bot.words import SendError
from storage.access import name_of
from storage.conversations import turn_behind
from storage.database import Transaction
from storage.ledger import Person
from storage.reports import Report, is_answer_at, last_reports, latest_answer, note_report

logger = logging.getLogger(__name__)

MAX_REASON_LETTERS = 500
SHOWN_LETTERS = 120
"""Of a reason, in a chat."""
MOST_REPORTS = 50
TELL_WITHIN_S = 8.0
NOTHING = "There is no answer of mine here that could be reported; reply to one with this command."
THANKS = "Thank you; those who run this bot see now which answer you mean."
AGAIN = "You have reported that answer already; those who run this bot know."
NOTED = (
    "Thank you, it is noted. This bot has no admins who could be told; it waits until whoever runs it looks."
)
NOTED_AGAIN = "You have reported that answer already; it waits until whoever runs this bot looks."


async def report(desk: CommandDesk, order: Order) -> str:
    """Keep that an answer was reported, and tell admins."""
    reason = order.arguments.get("reason", "").strip()
    if len(reason) > MAX_REASON_LETTERS:
        return f"That reason is {len(reason)} letters long; {MAX_REASON_LETTERS} are the most."
    is_first = await desk.desk.store.write(_noted, order, reason, desk.desk.clock.now_ms())
    if is_first is None:
        return NOTHING
    has_admins = bool(desk.desk.access.admins)
    if not is_first and not reason:
        return AGAIN if has_admins else NOTED_AGAIN
    if not has_admins:
        return NOTED
    if not is_first:
        return THANKS
    where = order.inbound.where
    if desk.admins_told.is_first("report", desk.desk.clock.now_s()):
        place = name_of(Person(where.platform, where.place))
        await _tell_admins(desk, f"Somebody has reported an answer in `{place}`: see `admin reports`.")
    return THANKS


async def reports(office: Office, arguments: Mapping[str, str]) -> Done:
    """The answers that were reported last."""
    rows = [_row(each) for each in await office.store.read(last_reports, MOST_REPORTS)]
    lines = [_line(row) for row in rows]
    return Done("\n".join(lines) or "Nobody has reported an answer.", rows)


def _noted(connection: Transaction, order: Order, reason: str, now_ms: int) -> bool | None:
    """Note a report; False if it was there already, None if no answer is meant."""
    turn_id = _meant(connection, order)
    return (
        None if turn_id is None else note_report(connection, turn_id, order.asker.account_id, reason, now_ms)
    )


def _meant(connection: Transaction, order: Order) -> str | None:
    """The answer whose button was pressed, that was replied to, or that is the latest here."""
    place_id, replied_to = order.asker.place.place_id, order.inbound.reply_to
    if NAMED_TURN in order.arguments or replied_to:
        named = order.arguments.get(NAMED_TURN) or turn_behind(connection, place_id, replied_to)
        return named if named is not None and is_answer_at(connection, place_id, named) else None
    here = find_here(connection, order.asker)
    return latest_answer(connection, place_id, None if here is None else here.conversation_id)


async def _tell_admins(desk: CommandDesk, sentence: str) -> None:
    """In a direct message, where that can be done soon; all of it is in the store."""
    try:
        async with asyncio.timeout(TELL_WITHIN_S):
            for admin in sorted(desk.desk.access.admins):
                await _tell_admin(desk, admin, sentence)
    except TimeoutError:
        logger.info("not all admins could be told of a report in time")


async def _tell_admin(desk: CommandDesk, admin: str, sentence: str) -> None:
    try:
        port = desk.ports.get(read_person(admin).platform)
        if isinstance(port, Writes):
            await port.write_to(admin, sentence)
    except (Mistaken, SendError) as error:
        logger.info("an admin could not be told of a report: %s", error)


def _row(each: Report) -> dict[str, str | int]:
    return {
        "at": datetime.fromtimestamp(each.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "who": name_of(each.reporter),
        "place": name_of(each.place),
        "message": each.message_id,
        "turn": each.turn_id,
        "reason": " ".join(each.reason.split()),
    }


def _line(row: Mapping[str, str | int]) -> str:
    words = str(row["reason"])
    reason = f": {words[:SHOWN_LETTERS]}{'..' * (len(words) > SHOWN_LETTERS)}" if words else ""
    message = f" message `{row['message']}`" if row["message"] else f" turn `{row['turn']}`"
    return f"{row['at']} `{row['who']}` reported `{row['place']}`{message}{reason}"
