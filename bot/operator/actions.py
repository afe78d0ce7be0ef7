"""All that those who run the bot can ask for: admins' commands, and what no chat offers."""

from collections.abc import Mapping

from bot.commands.admin import ACTIONS, set_quota, show_quota
from bot.commands.forgetting import forget_everything
from bot.commands.naming import Mistaken, read_person
from bot.commands.office import Action, Done, Office, needed
from storage.access import account_named, hash_of

NOT_YET = "An answer that is being written for them does not end; try again in a moment."


async def forget(office: Office, arguments: Mapping[str, str]) -> Done:
    """Delete all that is kept of a person, as they can themselves; what is written for them ends."""
    person = read_person(needed(arguments, "user"))
    account_id = await office.store.read(account_named, person)
    if account_id is None:
        raise Mistaken(f"`{person.external_id}` has not used the bot; there is nothing to forget.")
    # Who was forgotten is not to be read here either.
    deed = office.deed("forget", hash_of(person, office.hash_key))
    if not await forget_everything(office, account_id, deed):
        raise Mistaken(NOT_YET)
    return Done(f"All that was kept of `{person.external_id}` is deleted.")


ALL_ACTIONS: Mapping[str, Action] = {
    **ACTIONS,
    "admin forget": forget,
    "quota show": show_quota,
    "quota set": set_quota,
}
