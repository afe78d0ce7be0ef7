"""`./murmur dht`, `./murmur generate`, `./murmur status`."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable

from swarm.bootstrap import add_arguments as add_dht_arguments
from swarm.bootstrap import run_bootstrap
from swarm.commands.generate import add_arguments as add_generate_arguments
from swarm.commands.generate import run_generate
from swarm.commands.status import add_arguments as add_status_arguments
from swarm.commands.status import run_status
from swarm.errors import MurmurError
from swarm.loop import run

Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Awaitable[None]]]

COMMANDS: dict[str, Command] = {
    "dht": (add_dht_arguments, run_bootstrap),
    "generate": (add_generate_arguments, run_generate),
    "status": (add_status_arguments, run_status),
}


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        sys.stderr.write(f"murmur: there is no command {name!r} here; see ./murmur --help\n")
        return 2
    add_arguments, command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"./murmur {name}")
    add_arguments(parser)
    parsed = parser.parse_args(arguments[1:])
    try:
        run(_awaited(command, parsed))
    except MurmurError as error:
        sys.stderr.write(f"murmur {name}: {error}\n")
        return 2
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0 if name == "dht" else 130
    return 0


async def _awaited(
    command: Callable[[argparse.Namespace], Awaitable[None]], arguments: argparse.Namespace
) -> None:
    await command(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
