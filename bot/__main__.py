"""The bot's command line: bot, config, matrix, admin, quota, doctor."""

import os
import sys

from swarm.signals import leave_on_signals


def main(arguments: list[str]) -> int:
    """Run the named command; returns the exit status."""
    if arguments[:1] == ["config"]:
        from bot.config.command import run_config

        return run_config(arguments[1:], os.environ)
    if arguments[:1] == ["matrix"]:
        from bot.on_matrix.command import run_matrix

        return run_matrix(arguments[1:], os.environ)
    if arguments[:1] == ["doctor"]:
        from bot.doctor.command import run_doctor

        return run_doctor(arguments[1:], os.environ)
    if arguments[:1] in (["admin"], ["quota"]):
        from bot.operator.command import run_operator

        return run_operator(arguments, os.environ)
    from bot.command import run_command_line

    return run_command_line(arguments, os.environ)


if __name__ == "__main__":
    leave_on_signals(130)
    code = main(sys.argv[1:])
    leave_on_signals(code)
    sys.exit(code)
