"""All that those who run the bot can ask for: admins' commands, and what no chat offers."""

import asyncio
from collections.abc import Mapping

from bot.commands.admin import ACTIONS, set_quota, show_quota
from bot.commands.naming import Mistaken, read_person
from bot.commands.office import Action, Done, Office, needed
from storage.access import account_named, hash_of, note_deed
from storage.database import Transaction
from storage.live_sessions import drop_session
from storage.privacy import forget_person

ENDS_WITHIN_S = 20.0


async def forget(office: Office, arguments: Mapping[str, str]) -> Done:
    """Delete all that is kept of a person, as they can themselves; what is written for them ends."""
    person = read_person(needed(arguments, "user"))
    account_id = await office.store.read(account_named, person)
    if account_id is None:
        raise Mistaken(f"`{person.external_id}` has not used the bot; there is nothing to forget.")
    await _end_turns(office, account_id)
    # Who was forgotten is not to be read here either.
    deed, now_ms = office.deed("forget", hash_of(person, office.hash_key)), office.clock.now_ms()

    def delete(connection: Transaction) -> set[int]:
        touched = forget_person(connection, account_id, office.hash_key, now_ms)
        note_deed(connection, deed, now_ms)
        return touched

    await _close(office, await office.store.write(delete))
    return Done(f"All that was kept of `{person.external_id}` is deleted.")


ALL_ACTIONS: Mapping[str, Action] = {
    **ACTIONS,
    "admin forget": forget,
    "quota show": show_quota,
    "quota set": set_quota,
}


async def _end_turns(office: Office, account_id: int) -> None:
    """End what is written for somebody, and what is shown of it. Raises Mistaken if it does not end."""
    if office.bot is None:
        return
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await office.bot.end_turns_of(account_id)
    except TimeoutError as error:
        raise Mistaken(
            "An answer that is being written for them does not end; try again in a moment."
        ) from error


async def _close(office: Office, conversations: set[int]) -> None:
    """Close the sessions that know what is deleted; without a bot, servers let go when the lease ends."""
    for conversation_id in conversations:
        if office.bot is not None:
            await office.bot.brain.forget(conversation_id)
        else:
            await office.store.write(drop_session, conversation_id)
    await office.store.scrub()
