"""Help texts, made of the declarations."""

from bot.commands.catalogue import COMMANDS
from bot.commands.desk import CommandDesk, Order
from bot.commands.registry import Command


async def show_help(desk: CommandDesk, order: Order) -> str:
    """All commands that this person may use, or one in full."""
    name = order.arguments.get("command", "").lower().lstrip("!/")
    if not name:
        return "\n".join(f"{it.usage}: {it.summary}" for it in COMMANDS if it.who != "admin")
    command = COMMANDS.get(name)
    if command is None or command.who == "admin":
        group = [it for it in COMMANDS if it.name.startswith(f"{name} ") and it.who != "admin"]
        return "\n\n".join(map(_in_full, group)) or "There is no command of that name; `help` names all."
    return _in_full(command)


def _in_full(command: Command) -> str:
    arguments = [
        f"  {it.name}: {it.summary}{_choices(it.choices)}{'' if it.is_required else ' (may be left out)'}"
        for it in command.arguments
    ]
    example = [f"Example: {command.example}"] if command.example else []
    return "\n".join([f"{command.usage}: {command.summary}", *arguments, *example])


def _choices(choices: tuple[str, ...]) -> str:
    return f" ({', '.join(choices)})" if choices else ""
