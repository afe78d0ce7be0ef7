"""Commands on Matrix: lines that begin with `!` or `/`, and reactions to our answers. Pure."""

from bot.commands.catalogue import COMMANDS
from bot.commands.registry import Mistake
from bot.on_matrix.fields import MAX_ID_BYTES, Object, object_of, text_of
from bot.on_matrix.messages import is_marked
from bot.words import Call

CONTROLS = {"⏹": "stop", "🛑": "stop", "🔁": "retry", "🔄": "retry", "▶": "continue", "⏩": "continue"}
"""Signs that people put under an answer, and the commands that they stand for."""
SIGNS = {"stop": "⏹️", "retry": "🔁", "continue": "▶️"}
HOW = "React to an answer with ⏹️ to stop it, with 🔁 for another one, or with ▶️ to have it go on."
_VARIATION = "\ufe0f"
_FIRST_WORDS = frozenset(command.name.split()[0] for command in COMMANDS)


def read_call(
    text: str, prefix: str, *, is_for_us: bool, is_mention: bool, is_admin: bool = False
) -> Call | Mistake | None:
    """The command in a line, what is wrong with it, or None if it is none.

    Other bots are called with `!` too, so what nobody said to us is only a command if its name is one of
    ours. A path is no command either: `/` needs a name of ours.
    """
    line, is_known = text.strip(), False
    bare = line[len(prefix) :] if line.startswith(prefix) else line.lstrip("/") if line[:1] == "/" else ""
    if bare:
        is_known = bare.split()[:1] != [] and bare.split()[0].lower() in _FIRST_WORDS
    if bare and (is_known or (is_for_us and line.startswith(prefix) and bare[0].isalpha())):
        return COMMANDS.read(bare, prefix, is_admin=is_admin)
    if is_mention and COMMANDS.get(line.lower()) is not None:
        return COMMANDS.read(line, prefix, is_admin=is_admin)
    return None


def read_reaction(event: Object) -> tuple[str, str] | None:
    """The event that somebody reacted to, and the command that the sign stands for; None if a bot did it."""
    content = object_of(event.get("content"))
    relation = object_of(content.get("m.relates_to"))
    is_sign = event.get("type") == "m.reaction" and relation.get("rel_type") == "m.annotation"
    if not is_sign or is_marked(content):
        return None
    command = CONTROLS.get(text_of(relation.get("key"), MAX_ID_BYTES).replace(_VARIATION, ""))
    target = text_of(relation.get("event_id"))
    return (target, command) if command and target else None
