"""What somebody may still use, what their last answers have cost, and when there is more."""

from collections.abc import Sequence

from bot.commands.admin import show_quota
from bot.commands.desk import CommandDesk, Order
from bot.commands.office import in_chat
from bot.rendering.counting import counted
from bot.rendering.moments import from_now
from storage.charges import Charge, last_charges
from storage.ledger import standing

SHOWN_ANSWERS = 3
EARLIER = (
    "Of that you had used {} before I forgot you; a keyed hash without your name remembers it until there is"
    " more."
)


async def quota(desk: CommandDesk, order: Order) -> str:
    """How the asker's account stands; for admins, anybody's."""
    if "user" in order.arguments:
        if not desk.desk.access.is_admin(order.inbound.author.external_id):
            return "Only admins can see what others have."
        return await in_chat(show_quota)(desk, order)
    account_id, store, now_ms = order.asker.account_id, desk.desk.store, desk.desk.clock.now_ms()
    stands = await store.read(standing, account_id, now_ms)
    charges = await store.read(last_charges, account_id, SHOWN_ANSWERS)
    left, more = counted(stands.balance - stands.held, "credit"), counted(stands.held, "credit")
    port = desk.ports[order.inbound.where.platform]
    lines = [
        f"You have {left} left; today you have used {stands.used_today}.",
        EARLIER.format(counted(stands.used_earlier, "credit")) if stands.used_earlier else "",
        f"{more} more are held for answers that are being written." if stands.held else "",
        _cost(charges, now_ms),
        f"There is more at {port.moment(stands.next_grant_ms, now_ms)}.",
    ]
    return "\n".join(filter(None, lines))


def _cost(charges: Sequence[Charge], now_ms: int) -> str:
    """What the last answers have cost, and when; "" if there are none."""
    if not charges:
        return ""
    each = [f"{counted(it.amount, 'credit')} {from_now(it.at_ms, now_ms)}" for it in charges]
    what = "Your last answer has cost" if len(each) == 1 else "Your last answers have cost"
    return f"{what} {', '.join(each)}."
