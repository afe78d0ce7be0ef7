"""`./murmur bot`: the bots of a configuration, until they are told to stop."""

import argparse
import sys
from collections.abc import Mapping

from bot.config.command_line import MISTAKEN, CommandLine, load_or_tell, tell
from bot.config.models import Settings

EXAMPLES = """examples
  ./murmur config check                      # first: is everything set?
  ./murmur matrix login                      # once, for Matrix
  ./murmur bot
  ./murmur bot --config /etc/murmur/config.toml

SIGTERM and Ctrl-C let answers that are being written end (ops.drain_seconds); what people say meanwhile is
answered after the next start."""


def run_command_line(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run `./murmur bot`; returns 0 when it was told to stop, 2 for a mistake in one sentence.

    Raises SystemExit with a sentence, and status 1, for what may pass by itself.
    """
    parsed = parse(arguments)
    loaded = load_or_tell("bot", parsed.config, environment)
    if loaded is None:
        return MISTAKEN
    tell("bot", loaded.warnings)
    return _run(loaded.settings)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandLine(
        prog="./murmur bot", description="Runs the bots that a configuration enables.", epilog=EXAMPLES
    )
    parser.add_config()
    return parser.parse_args(arguments)


def _run(settings: Settings) -> int:
    from bot.observing.logs import secrets_of, set_up_logs
    from bot.operating import run_bot
    from swarm.loop import run_command

    set_up_logs(settings.ops, sys.stderr, secrets_of(settings))
    return run_command("bot", run_bot(settings), code_if_stopped=0)
