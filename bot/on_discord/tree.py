"""Slash commands, made of the catalogue (two words: a command of a group), sent when they have changed."""

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable

import discord
from discord import app_commands

from bot.commands.registry import Argument, Command, Registry
from bot.on_discord.errors import translated
from bot.on_discord.receipts import Asked
from storage.database import Database
from storage.inbox import get_marker, set_marker

MARKER = "commands"
ASK_ABOUT = "Ask about this"
SYNC_S = 60.0
EVERYWHERE = app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True)
SERVERS = app_commands.AppCommandContext(guild=True, dm_channel=False, private_channel=False)
FOR_ALL = app_commands.AppInstallationType(guild=True, user=True)
FOR_SERVERS = app_commands.AppInstallationType(guild=True, user=False)
ADMINS = discord.Permissions(manage_guild=True)

Obey = Callable[[Asked, Command, dict[str, str]], Awaitable[None]]
AskAbout = Callable[[Asked, discord.Message], Awaitable[None]]
Tree = app_commands.CommandTree[discord.Client]
Made = app_commands.Command[app_commands.Group, ..., None]


def build_tree(client: discord.Client, commands: Registry, obey: Obey, ask_about: AskAbout) -> Tree:
    """All commands of the catalogue, and one in the menu of messages."""
    tree = app_commands.CommandTree(client)
    groups: dict[str, app_commands.Group] = {}
    for command in commands:
        first, _, second = command.name.partition(" ")
        if not second:
            tree.add_command(_made(first, command, obey))
            continue
        if first not in groups:
            groups[first] = _group(first, commands)
            tree.add_command(groups[first])
        groups[first].add_command(_made(second, command, obey))

    async def about(interaction: Asked, message: discord.Message) -> None:
        await ask_about(interaction, message)

    menu = app_commands.ContextMenu(
        name=ASK_ABOUT, callback=about, allowed_contexts=EVERYWHERE, allowed_installs=FOR_ALL
    )
    tree.add_command(menu)
    return tree


async def sync_if_changed(tree: Tree, store: Database, platform: str) -> bool:
    """Let Discord know the commands if they are not those that it was told last; returns whether they were.

    Raises Refused, Limited, Unreachable.
    """
    wanted = fingerprint(tree)
    if await store.read(get_marker, platform, MARKER) == wanted:
        return False
    async with translated(SYNC_S):
        await tree.sync()
    await store.write(set_marker, platform, MARKER, wanted)
    return True


def fingerprint(tree: Tree) -> str:
    """Of all that Discord is told of the commands, and of the application that they belong to."""
    kinds = (discord.AppCommandType.chat_input, discord.AppCommandType.message)
    told = [command.to_dict(tree) for kind in kinds for command in tree.get_commands(type=kind)]
    whole = json.dumps([tree.client.application_id, told], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _group(name: str, commands: Registry) -> app_commands.Group:
    inside = [command for command in commands if command.name.startswith(f"{name} ")]
    is_for_admins = all(command.who == "admin" for command in inside)
    words = ", ".join(command.name.partition(" ")[2] for command in inside)
    return app_commands.Group(
        name=name,
        description=f"{name.capitalize()}: {words}"[:100],
        default_permissions=ADMINS if is_for_admins else None,
        allowed_contexts=SERVERS if is_for_admins else EVERYWHERE,
        allowed_installs=FOR_SERVERS if is_for_admins else FOR_ALL,
    )


def _made(name: str, command: Command, obey: Obey) -> Made:
    async def carry_out(interaction: Asked, **given: str | discord.abc.User | None) -> None:
        named = {
            key: value if isinstance(value, str) else str(value.id) for key, value in given.items() if value
        }
        await obey(interaction, command, named)

    # The library reads arguments off the function's signature.
    carry_out.__signature__ = _signature(command)  # type: ignore[attr-defined]
    app_commands.describe(**{it.name: it.summary for it in command.arguments})(carry_out)
    choices = {it.name: [_choice(one) for one in it.choices] for it in command.arguments if it.choices}
    app_commands.choices(**choices)(carry_out)
    return app_commands.Command(
        name=name,
        description=command.summary,
        callback=carry_out,
        allowed_contexts=EVERYWHERE,
        allowed_installs=FOR_ALL,
    )


def _choice(value: str) -> app_commands.Choice[str | int | float]:
    return app_commands.Choice(name=value, value=value)


def _signature(command: Command) -> inspect.Signature:
    asked = inspect.Parameter("interaction", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Asked)
    return inspect.Signature([asked, *map(_parameter, command.arguments)])


def _parameter(argument: Argument) -> inspect.Parameter:
    default = inspect.Parameter.empty if argument.is_required else None
    kind = discord.User if argument.kind == "person" else str
    return inspect.Parameter(argument.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
