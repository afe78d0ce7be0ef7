"""The bot's command line: bot, config, matrix, quota, doctor. What is not built yet says so."""

import os
import sys

from swarm.signals import leave_on_signals

NOT_BUILT = {
    "quota": "shows and changes quotas",
    "doctor": "looks for what is wrong with an installation",
}


def main(arguments: list[str]) -> int:
    """Run the named command; returns the exit status."""
    if arguments[:1] == ["config"]:
        from bot.config.command import run_config

        return run_config(arguments[1:], os.environ)
    if arguments[:1] == ["matrix"]:
        from bot.on_matrix.command import run_matrix

        return run_matrix(arguments[1:], os.environ)
    if arguments[:1] and arguments[0] in NOT_BUILT:
        return _say_not_built(arguments)
    from bot.command import run_command_line

    return run_command_line(arguments, os.environ)


def _say_not_built(arguments: list[str]) -> int:
    command = arguments[0]
    is_asking = any(argument in {"-h", "--help"} for argument in arguments)
    (sys.stdout if is_asking else sys.stderr).write(
        f"murmur: `./murmur {command}`, which {NOT_BUILT[command]}, is not built yet; "
        "`./murmur demo` is the room to talk in today.\n"
    )
    return 0 if is_asking else 2


if __name__ == "__main__":
    leave_on_signals(130)
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.exit(code)
