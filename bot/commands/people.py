"""Commands about the person who asks: what is kept of them, and who can read it."""

from bot.commands.desk import CommandDesk, Order
from bot.commands.forgetting import end_turns, forget_conversation, forget_everything
from bot.commands.office import actor_of, office_of
from bot.receiving.consent import NOTHING_ASKED
from bot.receiving.conversations import find_for_command
from bot.rendering.counting import counted
from storage.amounts import next_period_ms
from storage.ledger import usage_to_keep

NOT_YET = "An answer of yours is still being shown; please confirm once more in a moment."
CONFIRM = "That deletes {}, for good.{} To confirm, give the command `forget {}` again within a minute."
STAYS = (
    " Until new credits come, at {}, a keyed hash without your name remembers what counts as used today ({}):"
    " you keep what is left of today's credits, get none twice, and lose those that you have saved or that an"
    " admin has given you."
)
FORGOTTEN = (
    "All that I kept of you is deleted. Until new credits come, at {}, a keyed hash without your name"
    " remembers what counts as used today ({}); what is left of today's credits is still yours."
)


async def privacy(desk: CommandDesk, order: Order) -> str:
    """What is stored, for how long, who can see it, and how to leave."""
    return (
        "The model's blocks run on servers of volunteers; whoever runs one can recover what you write from"
        " what it computes, and your display name where several people talk with me in one conversation."
        " Do not tell me what you would not tell strangers.\n"
        "I keep conversations and their answers until nobody has used them for a while, and what you have"
        " used of your quota. `export` shows all of it, `forget` deletes it: what stays until midnight UTC is"
        " a keyed hash without your name, with what you have used that day.\n"
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
        if not everything:
            return CONFIRM.format("what you have asked here", "", "here")
        stays = await _with_usage(desk, order, STAYS)
        return CONFIRM.format("all that I keep of you, everywhere", stays, "everything")
    sentence = await (_forget_everything(desk, order) if everything else _forget_here(desk, order))
    if sentence == NOT_YET:
        desk.confirmations.is_second(key, clock.now_s())  # once more is enough
    return sentence


async def _forget_everything(desk: CommandDesk, order: Order) -> str:
    office, account_id = office_of(desk, actor_of(order)), order.asker.account_id
    if not await end_turns(office, account_id):
        return NOT_YET
    sentence = await _with_usage(desk, order, FORGOTTEN)
    return sentence if await forget_everything(office, account_id) else NOT_YET


async def _with_usage(desk: CommandDesk, order: Order, sentence: str) -> str:
    """With the moment of the next grant, and what is kept as used of this one."""
    now_ms, key = desk.desk.clock.now_ms(), desk.desk.hash_key
    used = await desk.desk.store.read(usage_to_keep, order.asker.account_id, key, now_ms)
    next_grant = desk.ports[order.inbound.where.platform].moment(next_period_ms(now_ms), now_ms)
    return sentence.format(next_grant, counted(used, "credit"))


async def _forget_here(desk: CommandDesk, order: Order) -> str:
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None:
        return "There is nothing of yours here."
    office = office_of(desk, actor_of(order))
    if not await forget_conversation(office, order.asker.account_id, here.conversation_id):
        return NOT_YET
    return "What you have asked here is deleted, with the answers."
