"""Deleting what is kept of a person, whether they ask for it in a chat or the operator does.

Under an answer that is still being written or shown nothing may be deleted: nobody would know any more where
it is. So what is written ends first, and if something was asked for meanwhile, nothing is deleted. Without a
bot nothing is being written, and what the last one left open goes with the rest.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bot.commands.office import Office
from bot.receiving.withdrawing import let_go
from storage.access import Deed, note_deed
from storage.database import Transaction
from storage.live_sessions import drop_session
from storage.privacy import Deleted, forget_here, forget_person
from storage.transcript import open_turns

if TYPE_CHECKING:
    from bot.commands.desk import CommandDesk

ENDS_WITHIN_S = 20.0


async def forget_everything(office: Office, account_id: int, deed: Deed | None = None) -> bool:
    """Delete all that is kept of a person, and note `deed`; False if an answer of theirs has not ended."""

    def delete(connection: Transaction) -> Deleted:
        now_ms = office.clock.now_ms()
        deleted = forget_person(connection, account_id, office.hash_key, now_ms)
        if deed is not None:
            note_deed(connection, deed, now_ms)
        return deleted

    return await _forget(office, account_id, delete)


async def forget_conversation(office: Office, account_id: int, conversation_id: int) -> bool:
    """Delete what a person has asked in a conversation; False if an answer of theirs has not ended."""

    def delete(connection: Transaction) -> Deleted:
        return forget_here(connection, account_id, conversation_id)

    return await _forget(office, account_id, delete)


async def _forget(office: Office, account_id: int, delete: Callable[[Transaction], Deleted]) -> bool:
    def delete_if_ended(connection: Transaction) -> Deleted | None:
        has_ended = office.bot is None or not _has_open_turns(connection, account_id)
        return delete(connection) if has_ended else None

    if not await end_turns(office, account_id):
        return False
    deleted = await office.store.write(delete_if_ended)
    if deleted is not None:
        await _close(office, deleted)
    return deleted is not None


async def end_turns(office: Office, account_id: int) -> bool:
    """End what is written for a person, and what is shown of it; False if that takes too long."""
    if office.bot is None:
        return True
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await office.bot.end_turns_of(account_id)
    except TimeoutError:
        return False
    return True


def _has_open_turns(connection: Transaction, account_id: int) -> bool:
    return any(said.question.account_id == account_id for said in open_turns(connection))


async def _close(office: Office, deleted: Deleted) -> None:
    """Close the sessions that know it; without a bot the servers let go of them when their leases end."""
    if office.bot is None:
        for conversation_id in deleted.conversations:
            await office.store.write(drop_session, conversation_id)
        await office.store.scrub()
        return
    await let_go(office.bot.brain, office.store, deleted.conversations, deleted.sessions)
    await close_personas(office.bot, deleted.personas)


async def close_personas(bot: "CommandDesk", unused: Iterable[str]) -> None:
    """Close what was told instructions that people do not follow any more, unless they are everybody's."""
    for instructions in unused:
        if instructions != bot.books.system:
            await bot.brain.forget_persona(instructions)
