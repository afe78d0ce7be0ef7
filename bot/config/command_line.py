"""What the bot's command lines have in common: help with examples, `--config`, and how mistakes are told."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bot.config.loading import BadConfig, Loaded, load_config
from swarm.say import say

DEFAULT_PATH = Path("config.toml")
MISTAKEN = 2
"""The exit code of a command that was not begun: what is wrong was said, one sentence for each mistake."""


class CommandLine(argparse.ArgumentParser):
    """A parser that shows the lines of its examples as they are written."""

    def __init__(self, **said: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **said)

    def add_config(self, default: Path | str = DEFAULT_PATH) -> None:
        """Let the configuration be named."""
        self.add_argument(
            "--config", type=Path, default=default, metavar="FILE", help=f"default: {DEFAULT_PATH}"
        )


def load_or_tell(
    command: str,
    path: Path,
    environment: Mapping[str, str],
    *,
    needs_secrets: bool = True,
    platform: str = "",
) -> Loaded | None:
    """The configuration in `path`; None if it has mistakes, which `murmur COMMAND` has told then.

    What is needed of it, `needs_secrets` and `platform` say: see `load_config`.
    """
    try:
        return load_config(path, environment, needs_secrets=needs_secrets, platform=platform)
    except BadConfig as error:
        tell(command, error.sentences)
    return None


def tell(command: str, sentences: Iterable[str]) -> None:
    """Say each sentence on a line of its own, as `murmur COMMAND`."""
    for sentence in sentences:
        say(f"murmur {command}: {sentence}")
