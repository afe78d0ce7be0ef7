"""Commands about the person who asks: what they may still use, and what is kept of them."""

import asyncio

from bot.commands.admin import show_quota
from bot.commands.desk import CommandDesk, Order
from bot.commands.office import in_chat
from bot.receiving.consent import NOTHING_ASKED
from bot.receiving.conversations import find_for_command
from bot.receiving.withdrawing import let_go
from storage.database import Transaction
from storage.ledger import standing
from storage.privacy import forget_here, forget_person
from storage.transcript import open_turns

ENDS_WITHIN_S = 20.0
NOT_YET = "An answer of yours is still being shown; please confirm once more in a moment."


async def quota(desk: CommandDesk, order: Order) -> str:
    """What somebody has left, and when there is more."""
    if "user" in order.arguments:
        if not desk.desk.access.is_admin(order.inbound.author.external_id):
            return "Only admins can see what others have."
        return await in_chat(show_quota)(desk, order)
    now_ms = desk.desk.clock.now_ms()
    stands = await desk.desk.store.read(standing, order.asker.account_id, now_ms)
    hours, minutes = divmod((stands.next_grant_ms - now_ms) // 60_000, 60)
    lines = [
        f"You have {_credits(stands.balance - stands.held)} left; today you have used {stands.used_today}.",
        f"{_credits(stands.held)} more are held for answers that are being written." if stands.held else "",
        f"There is more in {hours} h {minutes} min, at midnight UTC.",
    ]
    return "\n".join(filter(None, lines))


async def privacy(desk: CommandDesk, order: Order) -> str:
    """What is stored, for how long, who can see it, and how to leave."""
    return (
        "The model's blocks run on servers of volunteers; whoever runs one can recover what you write from"
        " what it computes. Do not tell me what you would not tell strangers.\n"
        "I keep conversations and their answers until nobody has used them for a while, and what you have"
        " used of your quota. `export` shows all of it, `forget` deletes it.\n"
        "To delete one question and its answer, delete your message."
    )


async def agree(desk: CommandDesk, order: Order) -> str:
    """Somebody agrees to what has to be agreed to before they are answered."""
    if not desk.desk.consent.notice:
        return NOTHING_ASKED
    inbound = order.inbound
    await desk.desk.consent.give(inbound, order.asker.account_id)
    number = await desk.take_up_kept(inbound.where.platform, inbound.author.external_id)
    again = "I answer what you have asked" if number else "ask me something"
    return f"Thank you; {again}. `forget everything` takes it back."


async def forget(desk: CommandDesk, order: Order) -> str:
    """Delete what is kept of a person, here or everywhere, once they have said so twice."""
    everything = order.arguments.get("what", "here") == "everything"
    key, clock = (order.asker.account_id, everything, order.asker.place.place_id), desk.desk.clock
    if not desk.confirmations.is_second(key, clock.now_s()):
        what = "all that I keep of you, everywhere" if everything else "what you have asked here"
        again = "forget everything" if everything else "forget here"
        return f"That deletes {what}, for good. To confirm, give the command `{again}` again within a minute."
    sentence = await (_forget_everything(desk, order) if everything else _forget_here(desk, order))
    if sentence == NOT_YET:
        desk.confirmations.is_second(key, clock.now_s())  # once more is enough
    return sentence


async def _forget_everything(desk: CommandDesk, order: Order) -> str:
    account_id, store = order.asker.account_id, desk.desk.store
    if not await _end_turns(desk, account_id):
        return NOT_YET
    now_ms = desk.desk.clock.now_ms()
    touched = await store.write(_forgotten, account_id, desk.desk.hash_key, now_ms)
    if touched is None:
        return NOT_YET
    await let_go(desk.brain, store, touched)
    return "All that I kept of you is deleted; that you were here today, I know by a code without your name."


async def _forget_here(desk: CommandDesk, order: Order) -> str:
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None:
        return "There is nothing of yours here."
    if not await _end_turns(desk, order.asker.account_id):
        return NOT_YET
    touched = await desk.desk.store.write(forget_here, order.asker.account_id, here.conversation_id)
    await let_go(desk.brain, desk.desk.store, touched)
    return "What you have asked here is deleted, with the answers."


async def _end_turns(desk: CommandDesk, account_id: int) -> bool:
    """End what is written for a person, and what is shown of it; False if that takes too long.

    Under what is still being shown nothing may be deleted: nobody would know any more where it is.
    """
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await desk.end_turns_of(account_id)
    except TimeoutError:
        return False
    return True


def _forgotten(connection: Transaction, account_id: int, key: bytes, now_ms: int) -> set[int] | None:
    """Forget a person; None if something has been asked for them meanwhile."""
    if any(said.question.account_id == account_id for said in open_turns(connection)):
        return None
    return forget_person(connection, account_id, key, now_ms)


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"
