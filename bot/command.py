"""`./murmur bot`: the bots of a configuration, until they are told to stop."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from bot.config.loading import BadConfig, load_config
from bot.config.models import Settings
from swarm.say import say

DEFAULT_PATH = Path("config.toml")
EXAMPLES = """examples
  ./murmur config check                      # first: is everything set?
  ./murmur matrix login                      # once, for Matrix
  ./murmur bot
  ./murmur bot --config /etc/murmur/config.toml

SIGTERM and Ctrl-C let answers that are being written end (ops.drain_seconds); what people say meanwhile is
answered after the next start."""


def run_command_line(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run `./murmur bot`; returns 0 when it was told to stop, 2 for a mistake in one sentence."""
    parsed = parse(arguments)
    try:
        loaded = load_config(parsed.config, environment)
    except BadConfig as error:
        for sentence in error.sentences:
            say(f"murmur bot: {sentence}")
        return 2
    for warning in loaded.warnings:
        say(f"murmur bot: {warning}")
    return _run(loaded.settings)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="./murmur bot",
        description="Runs the bots that a configuration enables.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: config.toml"
    )
    return parser.parse_args(arguments)


def _run(settings: Settings) -> int:
    from bot.observing.logs import secrets_of, set_up_logs
    from bot.operating import run_bot
    from swarm.loop import run_command

    set_up_logs(settings.ops, sys.stderr, secrets_of(settings))
    return run_command("bot", run_bot(settings), code_if_stopped=0)
