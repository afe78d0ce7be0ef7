"""Commands about the person who asks: what they may still use, and what is kept of them."""

from bot.commands.desk import CommandDesk, Order
from bot.conversations import find_for_command
from storage.ledger import standing
from storage.privacy import forget_here, forget_person
from storage.transcript import open_turns


async def quota(desk: CommandDesk, order: Order) -> str:
    """What somebody has left, and when there is more."""
    if "user" in order.arguments:
        return "Only admins can see what others have."
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


async def forget(desk: CommandDesk, order: Order) -> str:
    """Delete what is kept of a person, here or everywhere, once they have said so twice."""
    everything = order.arguments.get("what", "here") == "everything"
    key = (order.asker.account_id, everything, order.asker.place.place_id)
    if not desk.confirmations.is_second(key, desk.desk.clock.now_s()):
        what = "all that I keep of you, everywhere" if everything else "what you have asked here"
        again = "forget everything" if everything else "forget here"
        return f"That deletes {what}, for good. To confirm, give the command `{again}` again within a minute."
    return await (_forget_everything(desk, order) if everything else _forget_here(desk, order))


async def _forget_everything(desk: CommandDesk, order: Order) -> str:
    account_id, store = order.asker.account_id, desk.desk.store
    if await _has_open_turns(desk, account_id):
        return "An answer of yours is being written; it is stopped now. Please confirm once more."
    now_ms = desk.desk.clock.now_ms()
    touched = await store.write(forget_person, account_id, desk.desk.hash_key, now_ms)
    await _let_go(desk, touched)
    return "All that I kept of you is deleted; that you were here today, I know by a code without your name."


async def _forget_here(desk: CommandDesk, order: Order) -> str:
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None:
        return "There is nothing of yours here."
    if await _has_open_turns(desk, order.asker.account_id):
        return "An answer of yours is being written; it is stopped now. Please confirm once more."
    touched = await desk.desk.store.write(forget_here, order.asker.account_id, here.conversation_id)
    await _let_go(desk, touched)
    return "What you have asked here is deleted, with the answers."


async def _has_open_turns(desk: CommandDesk, account_id: int) -> bool:
    """Stop a person's turns; tell whether there were any."""
    turns = [
        said for said in await desk.desk.store.read(open_turns) if said.question.account_id == account_id
    ]
    for said in turns:
        desk.stop(said.question.turn_id)
    return bool(turns)


async def _let_go(desk: CommandDesk, conversations: set[int]) -> None:
    """Close the sessions that know what is deleted, and leave no bytes of it."""
    for conversation_id in conversations:
        await desk.brain.forget(conversation_id)
    await desk.desk.store.scrub()


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"
