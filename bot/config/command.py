"""`./murmur config check`: is this configuration right, and what does it come to?"""

import argparse
import io
import os
import sys
from collections.abc import Mapping

from bot.config.command_line import MISTAKEN, CommandLine, load_or_tell
from bot.config.report import as_json, as_text
from swarm.say import say

EXAMPLES = """examples
  ./murmur config check
  ./murmur config check --config /etc/murmur/config.toml
  MURMUR__LIMITS__MAX_NEW_TOKENS=200 ./murmur config check
  ./murmur config check --json | jq '.settings.swarm'

Every setting stands in config.example.toml. A variable MURMUR__SECTION__KEY overrides the file. Mistakes are
told one sentence each, and the exit code is 2 then."""


def run_config(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run `./murmur config`; returns the exit code."""
    parsed = _parse(arguments)
    loaded = load_or_tell("config", parsed.config, environment)
    if loaded is None:
        return MISTAKEN
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return _write(as_json(loaded) if parsed.json else as_text(loaded))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandLine(
        prog="./murmur config", description="Checks a configuration of the bot.", epilog=EXAMPLES
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="show what is set and where each value came from",
        description="Shows every setting and where it came from: file, default or environment. No secrets.",
        epilog=EXAMPLES,
    )
    check.add_config()
    check.add_argument("--json", action="store_true", help="file, settings, warnings as one JSON object")
    return parser.parse_args(arguments)


def _write(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # somebody has read enough; what is left must not fail again at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        say(f"murmur config: the report cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
