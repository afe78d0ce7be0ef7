"""What one person is told, cut into what Discord takes. Pure."""

from bot.commands.catalogue import COMMANDS
from bot.rendering.splitting import split, utf16_units
from bot.words import File, Inbound

LETTERS = 1900
MOST_TOLD_PARTS = 3
WHOLE_NAME = "all.txt"
IN_FILE = "(all of it is in the file)"
LEFT_OUT = "({} more letters are left out)"
TOLD_IN_PLACE_LETTERS = 300
NO_DIRECT_MESSAGES = "I cannot write to you privately: allow direct messages from members of this server."
NOTHING = "(nothing)"


def shown(text: str) -> str:
    """Discord takes no message without a text."""
    return text if text.strip() else NOTHING


def told(text: str, file: File | None) -> tuple[list[str], File | None]:
    """The messages that tell somebody something, and the file that comes with the first of them.

    What needs too many messages comes in a file, or, if there is one already, is cut off with a note.
    """
    parts = split(text, LETTERS, utf16_units)
    if len(parts) <= MOST_TOLD_PARTS:
        return [part.text for part in parts], file
    if file is None:
        return [f"{parts[0].text}\n{IN_FILE}"], (WHOLE_NAME, text.encode())
    num_left = sum(len(part.body) for part in parts[MOST_TOLD_PARTS:])
    kept = [part.text for part in parts[:MOST_TOLD_PARTS]]
    return [*kept[:-1], f"{kept[-1]}\n{LEFT_OUT.format(num_left)}"], file


def for_all(inbound: Inbound, text: str) -> str:
    """What may be said where others read it."""
    command = COMMANDS.get(inbound.call.command) if inbound.call is not None else None
    is_personal = command is not None and command.is_personal
    return NO_DIRECT_MESSAGES if is_personal or len(text) > TOLD_IN_PLACE_LETTERS else text
