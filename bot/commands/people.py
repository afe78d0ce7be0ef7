"""Commands about the person who asks: what they may still use, and what is kept of them."""

from bot.commands.desk import CommandDesk, Order
from storage.ledger import standing

DAY_HOURS = 24


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


def _credits(number: int) -> str:
    return f"{number} credit" if number == 1 else f"{number} credits"
