"""Who carries out which command, and what the person is told."""

import logging
from collections.abc import Mapping

from bot.commands.catalogue import COMMANDS
from bot.commands.desk import CommandDesk, Handler, Order
from bot.commands.help import show_help
from bot.commands.people import forget, privacy, quota
from bot.commands.talk import begin_anew, go_on, stop, try_again, undo
from bot.commands.wishes import (
    persona_clear,
    persona_set,
    persona_show,
    settings_reset,
    settings_set,
    settings_show,
)
from bot.conversations import Asker
from bot.words import Call, Inbound, SendError

logger = logging.getLogger(__name__)

HANDLERS: Mapping[str, Handler] = {
    "new": begin_anew,
    "stop": stop,
    "retry": try_again,
    "continue": go_on,
    "undo": undo,
    "persona show": persona_show,
    "persona set": persona_set,
    "persona clear": persona_clear,
    "settings show": settings_show,
    "settings set": settings_set,
    "settings reset": settings_reset,
    "quota": quota,
    "privacy": privacy,
    "forget": forget,
    "help": show_help,
}


class Obey:
    """Finds who carries out a command, and answers."""

    def __init__(self, desk: CommandDesk) -> None:
        self._desk = desk

    async def __call__(self, inbound: Inbound, call: Call, asker: Asker) -> None:
        """Carry out a command, and tell the person what came of it."""
        sentence = await self._carry_out(inbound, call, asker)
        if not sentence:
            return
        try:
            await self._desk.ports[inbound.where.platform].tell(inbound, sentence)
        except SendError as error:
            logger.warning("a person could not be told: %s", error)

    async def _carry_out(self, inbound: Inbound, call: Call, asker: Asker) -> str:
        command, handler = COMMANDS.get(call.command), HANDLERS.get(call.command)
        if command is None or handler is None:
            return "That command is not there yet."
        if command.who == "moderator" and not inbound.author.is_moderator:
            return "Only moderators of this place may do that."
        return await handler(self._desk, Order(inbound, asker, call.arguments))
