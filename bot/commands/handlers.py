"""Who carries out which command, and what the person is told."""

import logging
from collections.abc import Mapping

from bot.commands.admin import ACTIONS
from bot.commands.catalogue import COMMANDS
from bot.commands.desk import CommandDesk, Handler, Order, Told
from bot.commands.files import export, history
from bot.commands.help import show_help
from bot.commands.office import in_chat
from bot.commands.people import agree, forget, privacy
from bot.commands.quota import quota
from bot.commands.reports import report
from bot.commands.swarm import contribute, model_list, status
from bot.commands.talk import begin_anew, go_on, stop, try_again, undo
from bot.commands.wishes import (
    persona_channel,
    persona_clear,
    persona_set,
    persona_show,
    settings_reset,
    settings_set,
    settings_show,
)
from bot.receiving.conversations import Asker
from bot.words import Call, Inbound, Refused, SendError

logger = logging.getLogger(__name__)

NO_FILE = "The file was refused here; try it in a direct message to me."

HANDLERS: Mapping[str, Handler] = {
    "new": begin_anew,
    "stop": stop,
    "retry": try_again,
    "continue": go_on,
    "undo": undo,
    "persona show": persona_show,
    "persona set": persona_set,
    "persona clear": persona_clear,
    "persona channel": persona_channel,
    "settings show": settings_show,
    "settings set": settings_set,
    "settings reset": settings_reset,
    "model list": model_list,
    "quota": quota,
    "status": status,
    "contribute": contribute,
    "privacy": privacy,
    "agree": agree,
    "history": history,
    "export": export,
    "forget": forget,
    "report": report,
    "help": show_help,
    **{name: in_chat(action) for name, action in ACTIONS.items()},
}


class Obey:
    """Finds who carries out a command, and answers."""

    def __init__(self, desk: CommandDesk) -> None:
        self._desk = desk

    async def __call__(self, inbound: Inbound, call: Call, asker: Asker) -> None:
        """Carry out a command, and tell the person what came of it."""
        outcome = await self._carry_out(inbound, call, asker)
        told = outcome if isinstance(outcome, Told) else Told(outcome)
        if not told.text:
            return
        port = self._desk.ports[inbound.where.platform]
        try:
            try:
                await port.tell(inbound, told.text, told.file)
            except Refused:
                if told.file is None:
                    raise
                await port.tell(inbound, NO_FILE)
        except SendError as error:
            logger.warning("a person could not be told: %s", error)

    async def _carry_out(self, inbound: Inbound, call: Call, asker: Asker) -> str | Told:
        command, handler = COMMANDS.get(call.command), HANDLERS.get(call.command)
        if command is None or handler is None:
            return "That command is not there yet."
        if command.who == "moderator" and not inbound.author.is_moderator:
            return "Only moderators of this place may do that."
        if command.who == "admin" and not self._desk.desk.access.is_admin(inbound.author.external_id):
            return "Only admins of this bot may do that."
        return await handler(self._desk, Order(inbound, asker, call.arguments))
