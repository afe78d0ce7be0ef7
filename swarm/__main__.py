"""`./murmur dht`, `./murmur generate`, `./murmur status`."""

import argparse
import sys

from swarm.signals import leave_on_signals

COMMANDS = ("dht", "generate", "status")


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        sys.stderr.write(f"murmur: there is no command {name!r} here; see ./murmur --help\n")
        return 2
    import logging

    from swarm.loop import run_command

    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    parser = argparse.ArgumentParser(prog=f"./murmur {name}")
    if name == "dht":
        from swarm.bootstrap import add_arguments
        from swarm.bootstrap import run_bootstrap as command
    elif name == "generate":
        from swarm.commands.generate import add_arguments
        from swarm.commands.generate import run_generate as command
    else:
        from swarm.commands.status import add_arguments
        from swarm.commands.status import run_status as command
    add_arguments(parser)
    parsed = parser.parse_args(arguments[1:])
    return run_command(name, command(parsed), code_if_stopped=code_if_stopped(name))


def code_if_stopped(name: str) -> int:
    """The exit code after Ctrl-C: a node has no other end, an answer has."""
    return 0 if name == "dht" else 130


if __name__ == "__main__":
    leave_on_signals(code_if_stopped(sys.argv[1] if sys.argv[1:] else ""))
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.exit(code)
