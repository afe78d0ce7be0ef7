"""The bot's command line: bot, config, quota, doctor. What is not built yet says so."""

import os
import sys

from swarm.signals import leave_on_signals

NOT_BUILT = {
    "bot": "runs the Discord and Matrix bots",
    "quota": "shows and changes quotas",
    "doctor": "looks for what is wrong with an installation",
}


def main(arguments: list[str]) -> int:
    """Run the named command; returns the exit status."""
    if arguments[:1] == ["config"]:
        from bot.config.command import run_config

        return run_config(arguments[1:], os.environ)
    return _say_not_built(arguments)


def _say_not_built(arguments: list[str]) -> int:
    command = arguments[0] if arguments and arguments[0] in NOT_BUILT else "bot"
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
