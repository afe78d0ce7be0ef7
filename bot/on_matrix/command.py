"""`./murmur matrix login` and `reset-identity`: what an operator does once for the account on Matrix."""

import argparse
import getpass
import sys
from collections.abc import Mapping

from bot.config.command_line import MISTAKEN, CommandLine, load_or_tell
from bot.config.platforms import MatrixSettings
from swarm.errors import ConfigError
from swarm.say import say

EXAMPLES = """examples
  ./murmur matrix login
  MATRIX_PASSWORD=... ./murmur matrix login --config /etc/murmur/config.toml
  ./murmur matrix reset-identity

login asks for the password, unless it is set, and keeps a token and a device in matrix.store. reset-identity
replaces the account's cross-signing keys if they were made by somebody else; clients then warn once."""


def run_matrix(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run `./murmur matrix`; returns the exit code."""
    parsed = _parse(arguments)
    loaded = load_or_tell("matrix", parsed.config, environment, platform="matrix")
    if loaded is None:
        return MISTAKEN
    from swarm.loop import run_command

    settings = loaded.settings.matrix
    work = _log_in(settings) if parsed.command == "login" else _reset(settings)
    return run_command(f"matrix {parsed.command}", work, code_if_stopped=130)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = CommandLine(
        prog="./murmur matrix", description="Prepares the bot's account on Matrix.", epilog=EXAMPLES
    )
    parser.add_argument("command", choices=["login", "reset-identity"])
    parser.add_config()
    return parser.parse_args(arguments)


async def _log_in(settings: MatrixSettings) -> None:
    from bot.on_matrix.account import NotLoggedIn, log_in
    from bot.words import Unreachable

    _check(settings)
    try:
        await log_in(settings.homeserver, settings.user, _password(settings), settings.store)
    except (NotLoggedIn, Unreachable) as error:
        raise ConfigError(str(error)) from error
    say(f"{settings.user} is logged in; its token and keys are in {settings.store}.")


async def _reset(settings: MatrixSettings) -> None:
    from bot.on_matrix.account import NotLoggedIn, open_account, replace_identity
    from bot.on_matrix.cross_signing import IdentityRefused
    from bot.on_matrix.signing_seeds import SeedsUnusable
    from bot.words import SendError

    _check(settings)
    secret, password = settings.store_secret.get_secret_value(), _password(settings)
    try:
        async with open_account(settings.homeserver, settings.user, settings.store, secret) as client:
            await replace_identity(client, settings.store, secret, password)
    except (NotLoggedIn, IdentityRefused, SeedsUnusable, SendError, TimeoutError) as error:
        raise ConfigError(str(error) or "the homeserver did not answer in time") from error
    say(f"{settings.user} has new cross-signing keys, and this device is signed with them.")


def _check(settings: MatrixSettings) -> None:
    """Raise ConfigError if the account is not named, which only a platform that is enabled must."""
    if not (settings.homeserver and settings.user):
        raise ConfigError("[matrix] needs homeserver and user first")


def _password(settings: MatrixSettings) -> str:
    """The one that is set, or what the person types. Raises ConfigError if nobody is there to be asked."""
    if password := settings.password.get_secret_value():
        return password
    if not sys.stdin.isatty():
        raise ConfigError("there is no password: set MATRIX_PASSWORD, or run this in a terminal")
    return getpass.getpass(f"password of {settings.user}: ")
