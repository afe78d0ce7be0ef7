"""Who may use the bot on Matrix: what the operator has set, and what admins have said since."""

from bot.config.platforms import MatrixSettings
from bot.on_matrix.memory import PLATFORM
from bot.on_matrix.people import is_among, server_of
from bot.receiving.access import Access


def may_use(settings: MatrixSettings, access: Access, user_id: str, *, is_order: bool = False) -> bool:
    """Whether somebody may use the bot, as far as that is about them and no room. What is denied is denied.

    Of an order, an admin's own command, admins cannot deny anything; see `Access.is_order`.
    """
    said = access.rule_for(PLATFORM, (user_id, server_of(user_id)), is_order=is_order)
    is_silenced = access.is_silenced(PLATFORM, user_id) and not is_order
    if is_silenced or said is False or is_among(user_id, settings.denied_users):
        return False
    return bool(said) or not settings.allowed_users or is_among(user_id, settings.allowed_users)
