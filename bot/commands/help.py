"""Help texts, made of the declarations."""

from bot.commands.catalogue import COMMANDS
from bot.commands.desk import CommandDesk, Order
from bot.commands.registry import Command


async def show_help(desk: CommandDesk, order: Order) -> str:
    """All commands that this person may use, or one in full."""
    name = order.arguments.get("command", "").lower().lstrip("!/")
    is_admin = desk.desk.access.is_admin(order.inbound.author.external_id)
    shown = [it for it in COMMANDS if is_admin or it.who != "admin"]
    if not name:
        controls = desk.ports[order.inbound.where.platform].limits.controls
        lines = [f"{it.usage}: {it.summary}" for it in shown]
        return "\n".join([*lines, controls] if controls else lines)
    found = [it for it in shown if it.name == name or it.name.startswith(f"{name} ")]
    return "\n\n".join(map(_in_full, found)) or "There is no command of that name; `help` names all."


def _in_full(command: Command) -> str:
    arguments = [
        f"  {it.name}: {it.summary}{_choices(it.choices)}{'' if it.is_required else ' (may be left out)'}"
        for it in command.arguments
    ]
    example = [f"Example: {command.example}"] if command.example else []
    return "\n".join([f"{command.usage}: {command.summary}", *arguments, *example])


def _choices(choices: tuple[str, ...]) -> str:
    return f" ({', '.join(choices)})" if choices else ""
