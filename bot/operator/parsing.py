"""Reading `./murmur admin` and `./murmur quota`: a twin for each of admins' commands, and some more."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from bot.commands.catalogue import COMMANDS
from bot.commands.registry import Argument, Command
from bot.config.command_line import MISTAKEN, CommandLine
from swarm.say import say

LISTS = frozenset({"admin audit", "admin reports", "admin sessions", "quota show"})
_USER = Argument("user", "@ada:example.org, or an id of Discord", is_required=True)
_CREDITS = Argument("credits", "how many", is_required=True)
QUOTA = (
    Command("quota show", "What a person may still use", arguments=(_USER,),
            example="quota show @ada:example.org"),
    Command("quota grant", "Give credits to a person, or take them", arguments=(_USER, _CREDITS),
            example="quota grant @ada:example.org -500"),
    Command("quota set", "Make a person's balance what it should be", arguments=(_USER, _CREDITS),
            example="quota set 123456789012345678 20000"),
)  # fmt: skip
MORE = (
    Command("admin forget", "Delete all that is kept of a person", arguments=(_USER,),
            example="admin forget @ada:example.org --yes"),
    Command("admin export", "All that is kept of a person, as JSON", arguments=(_USER,),
            example="admin export @ada:example.org --output ada.json"),
    Command("admin backup", "Copy the store and its key, also while the bot runs",
            arguments=(Argument("file", "where to", is_required=True),),
            example="admin backup murmur.backup"),
    Command("admin invite-url", "The link with which the bot is added to a Discord server",
            example="admin invite-url"),
)  # fmt: skip
TWINS = tuple(command for command in COMMANDS if command.who == "admin")
DESCRIPTIONS = {
    "admin": "What admins can do in a chat, and some more, from the machine on which the bot runs.",
    "quota": "Shows and changes people's credits.",
}
NOTE = """
A bot that runs carries commands out through [ops] control_socket; without one they are done on its store."""


class OneSentence(CommandLine):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Say it, and exit as mistaken."""
        say(f"murmur: {message.splitlines()[0]}; {self.prog} --help tells more")
        sys.exit(MISTAKEN)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read a command line that begins with `admin` or `quota`. `command` is its name in the registry."""
    group, commands = arguments[0], QUOTA if arguments[0] == "quota" else (*TWINS, *MORE)
    examples = "\n".join(f"  ./murmur {it.example or it.name}" for it in commands)
    parser = OneSentence(
        prog=f"./murmur {group}",
        description=DESCRIPTIONS[group],
        epilog=f"examples\n{examples}\n{NOTE}",
    )
    parser.add_config()
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        _add(subparsers, command)
    return parser.parse_args(arguments[1:])


def _add(subparsers: "argparse._SubParsersAction[OneSentence]", command: Command) -> None:
    parser = subparsers.add_parser(
        command.name.partition(" ")[2],
        help=command.summary,
        description=f"{command.summary}.",
        epilog=f"example\n  ./murmur {command.example or command.name}",
    )
    for argument in command.arguments:
        how_many = None if argument.is_required else "?"
        parser.add_argument(argument.name, help=argument.summary, nargs=how_many)
    _add_options(parser, command.name)
    # `quota grant` is the command that chats know as `admin grant`.
    parser.set_defaults(command="admin grant" if command.name == "quota grant" else command.name)


def _add_options(parser: CommandLine, name: str) -> None:
    parser.add_config(argparse.SUPPRESS)  # one that stands before the command is not taken back
    if name in LISTS:
        parser.add_argument("--json", action="store_true", help="the same as JSON, a list of objects")
    if name == "admin forget":
        parser.add_argument("--yes", action="store_true", help="do not ask; it cannot be taken back")
    if name == "admin export":
        parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    if name in ("admin backup", "admin export"):
        parser.add_argument("--replace", action="store_true", help="write over a file that is there")
