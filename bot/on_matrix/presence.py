"""What people see below the bot's name: how the swarm is, said when it changes, once a minute at most.

Homeservers may have presence switched off. Then they refuse it, or take it and show it to nobody.
"""

import logging
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from bot.clock import Clock
from bot.on_matrix.sending import Sending
from bot.on_matrix.wire import Wire
from bot.rendering.presence import presence_of
from bot.survey import Survey
from bot.words import Refused, SendError
from swarm.errors import MurmurError

logger = logging.getLogger(__name__)

EVERY_S = 60.0

Look = Callable[[], Awaitable[Survey]]


async def show_presence_forever(sending: Sending, survey: Look, prefix: str, clock: Clock) -> None:
    """Look each minute, and show what has changed, as soon as the homeserver can be reached."""
    await sending.is_ready.wait()
    shown = ""
    while True:
        text = await _looked(survey, prefix)
        if text not in ("", shown) and await _show(sending.wire, text):
            shown = text
        await clock.sleep(EVERY_S)


async def _looked(survey: Look, prefix: str) -> str:
    try:
        return presence_of(await survey(), prefix)
    except MurmurError as error:
        logger.info("the swarm does not say how it is: %s", error)
        return ""


async def _show(wire: Wire, text: str) -> bool:
    """Show it; False if that is worth another try."""
    path = f"/presence/{quote(wire.user_id, safe='')}/status"
    try:
        await wire.ask("PUT", path, {"presence": "online", "status_msg": text})
    except SendError as error:
        logger.info("how the swarm is cannot be shown: %s", error)
        return isinstance(error, Refused)
    return True
