"""`./murmur admin` and `./murmur quota`: read, have it done, and show what came of it."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bot.commands.naming import Mistaken
from bot.config.command_line import MISTAKEN, load_or_tell
from bot.config.models import Settings
from bot.operator.carrying import carry_out, check_store, open_office
from bot.operator.files import back_up, check_target, export, write_privately
from bot.operator.parsing import parse
from storage.errors import StorageError
from swarm.background import running
from swarm.errors import ConfigError
from swarm.loop import run_command
from swarm.say import clear, is_terminal, say, show

QUIET_S = 2.0
OPTIONS = frozenset({"command", "config", "json", "yes", "output", "replace"})
NOT_SURE = "this deletes all that is kept of them, for good: add --yes if you are sure"


def run_operator(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run the command line, `admin` or `quota` being its first word; returns the exit status."""
    parsed = parse(arguments)
    name = f"{arguments[0]} {parsed.command.partition(' ')[2]}"
    is_inviting = parsed.command == "admin invite-url"
    loaded = load_or_tell(
        name,
        parsed.config,
        environment,
        needs_secrets=is_inviting,
        platform="discord" if is_inviting else "",
    )
    if loaded is None:
        return MISTAKEN
    return run_command(name, _run(loaded.settings, parsed), code_if_stopped=130)


async def _run(settings: Settings, parsed: argparse.Namespace) -> None:
    """Do what is asked. Raises ConfigError with the sentence if it is not done."""
    try:
        async with _telling_that_it_goes_on(parsed.command):
            shown = await _done(settings, parsed)
    except (Mistaken, StorageError) as error:
        raise ConfigError(str(error)) from error
    if shown:
        sys.stdout.write(f"{shown}\n")


async def _done(settings: Settings, parsed: argparse.Namespace) -> str:
    """Do it; returns what to show."""
    if parsed.command == "admin backup":
        target = Path(parsed.file)
        check_store(settings.storage.path)
        await asyncio.to_thread(back_up, settings.storage.path, target, replace=parsed.replace)
        return f"The store is copied to {target}, its key to {target}.key; keep both where nobody reads them."
    if parsed.command == "admin export":
        return await _export(settings, parsed)
    if parsed.command == "admin invite-url":
        return await _invite_url(settings)
    if parsed.command == "admin forget" and not parsed.yes:
        raise Mistaken(NOT_SURE)
    given = {
        name: str(value) for name, value in vars(parsed).items() if name not in OPTIONS and value is not None
    }
    done = await carry_out(settings, parsed.command, given)
    if getattr(parsed, "json", False):
        return json.dumps(done.rows or [], indent=2)
    return _printable(done.text)


async def _export(settings: Settings, parsed: argparse.Namespace) -> str:
    if parsed.output is not None:
        check_target(parsed.output, settings.storage.path)
    async with open_office(settings, is_alone=False) as office:
        exported = await export(office, parsed.user)
    if parsed.output is None:
        return exported.decode().rstrip("\n")
    write_privately(parsed.output, exported, replace=parsed.replace)
    return f"All that is kept of {_printable(parsed.user)} is in {parsed.output}."


async def _invite_url(settings: Settings) -> str:
    from bot.on_discord.inviting import invite_url

    return await invite_url(settings.discord.token.get_secret_value())


@asynccontextmanager
async def _telling_that_it_goes_on(what: str) -> AsyncIterator[None]:
    async with running(_tell(what)):
        yield
    clear()


async def _tell(what: str) -> None:
    """After a while, show that we are at work: on a terminal all the time, elsewhere once."""
    await asyncio.sleep(QUIET_S)
    passed_s = QUIET_S
    if not is_terminal():
        say(f"murmur {what}: at work")
        return
    while True:
        show(f"murmur {what}: at work for {passed_s:.0f} s")
        await asyncio.sleep(1.0)
        passed_s += 1.0


def _printable(text: str) -> str:
    """What other people chose to be called moves no cursor."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
