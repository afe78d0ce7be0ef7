"""The bot's command line: bot, config, quota, doctor. None of them is built yet, and each says so."""

import sys

COMMANDS = {
    "bot": "runs the Discord and Matrix bots",
    "config": "checks a configuration file",
    "quota": "shows and changes quotas",
    "doctor": "looks for what is wrong with an installation",
}


def main(arguments: list[str]) -> int:
    """Say what the named command is for and that it is not built yet; return the exit status."""
    command = arguments[0] if arguments and arguments[0] in COMMANDS else "bot"
    is_asking = any(argument in {"-h", "--help"} for argument in arguments)
    (sys.stdout if is_asking else sys.stderr).write(
        f"murmur: `./murmur {command}`, which {COMMANDS[command]}, is not built yet; "
        "`./murmur demo` is the room to talk in today.\n"
    )
    return 0 if is_asking else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
