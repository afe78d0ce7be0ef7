"""`./murmur status`: who serves a model now, and whether the swarm can answer, on standard output."""

import argparse
import asyncio
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

from swarm.checkpoint import Checkpoint, check_model, open_checkpoint
from swarm.checkpoint.progress import SpokenProgress
from swarm.commands.status_page import Look, page
from swarm.commands.status_report import Report
from swarm.errors import SwarmTimeout
from swarm.identity import check_temporary_folder
from swarm.listening import check_initial_peers
from swarm.say import clear, say

if TYPE_CHECKING:
    from swarm.dht import Dht

REFRESH_S = 2.0
LOOK_UP_S = 20.0
WIDTH_ELSEWHERE = 132  # without a terminal: room for every column
EXAMPLES = """examples
  ./murmur status ./demo/model --initial-peers /ip4/127.0.0.1/tcp/31337/p2p/12D3Koo...
  ./murmur status owner/model --initial-peers ... --watch
  ./murmur status owner/model --initial-peers ... --json --check || echo 'some blocks have no server'

The picture has a bar for every server, and below it the number of servers of every block: 0 is a gap.
tokens/s is through all blocks of the server under load; blocks/s alone is for one token of one session."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `./murmur status`."""
    parser.description = "The swarm: which servers host which blocks of a model, and how they are."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="a Hub id, or a directory: the servers' model")
    parser.add_argument(
        "--initial-peers", nargs="+", required=True, metavar="ADDRESS", help="nodes of the swarm"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one object: model, fingerprint, num_blocks, complete, missing, hosted_instead, servers",
    )
    how_often = parser.add_mutually_exclusive_group()
    how_often.add_argument(
        "--watch", action="store_true", help=f"look again every {REFRESH_S:.0f} s, until Ctrl-C"
    )
    how_often.add_argument(
        "--check", action="store_true", help="exit with 1 if some blocks have no server (default: 0)"
    )


async def run_status(arguments: argparse.Namespace) -> None:
    """Show the swarm once, or until cancelled with `--watch`. Raises MurmurError with a sentence.

    Exits with 1 if `--check` finds blocks without a server.
    """
    report = None
    try:
        report = await _shown(arguments)
    except asyncio.CancelledError:
        if not arguments.watch:  # a watch has no other end than this
            raise
    if arguments.check and report is not None and not report.is_complete:
        sys.exit(1)


async def _shown(arguments: argparse.Namespace) -> Report:
    """Join, look, show; the last report."""
    check_temporary_folder()
    check_model(arguments.model)
    check_initial_peers(arguments.initial_peers)
    from swarm.dht import open_dht  # hivemind takes seconds; a mistake is told before
    from swarm.transport import open_transport

    checkpoint = await asyncio.to_thread(_opened, arguments.model)
    async with (
        open_transport(initial_peers=arguments.initial_peers, client_only=True) as transport,
        open_dht(transport, arguments.initial_peers) as dht,
    ):
        while True:
            report = await _look_up(dht, checkpoint)
            _show(report, arguments)
            if not arguments.watch:
                return report
            await asyncio.sleep(REFRESH_S)


def _opened(model: str) -> Checkpoint:
    """The model, with what we ask of it computed: from the Hub that may take a while, so not in the loop."""
    progress = SpokenProgress(say)
    checkpoint = open_checkpoint(model, progress=progress)
    checkpoint.find_fingerprint(progress)
    _ = checkpoint.num_blocks
    clear()
    return checkpoint


async def _look_up(dht: "Dht", checkpoint: Checkpoint) -> Report:
    try:
        async with asyncio.timeout(LOOK_UP_S):
            records = await dht.find_servers(checkpoint.fingerprint)
            servers = tuple(record for record in records if record.state != "offline")
            hosted = () if servers else await dht.find_models()
    except TimeoutError as error:
        raise SwarmTimeout(f"the swarm did not say within {LOOK_UP_S:.0f} s who serves; try again") from error
    return Report(
        model=checkpoint.name,
        fingerprint=checkpoint.fingerprint,
        num_blocks=checkpoint.num_blocks,
        servers=servers,
        now=time.time(),
        num_peers=dht.num_peers,
        hosted=hosted,
    )


def _show(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.json:
        text = report.as_json() + "\n"
    elif not arguments.watch:
        text = "\n".join([*page(report, _look()), ""])
    elif _is_terminal():
        text = in_place(page(report, _look()), shutil.get_terminal_size().lines)
    else:
        text = "\n".join([*page(report, _look()), "", ""])
    sys.stdout.write(text)
    sys.stdout.flush()


def in_place(lines: list[str], height: int) -> str:
    """What replaces the page that a terminal of `height` lines shows: no flicker, no scrolling."""
    footer = f"every {REFRESH_S:.0f} s; Ctrl-C ends"
    room = max(1, height - 3)
    if len(lines) > room:
        footer = f"{len(lines) - room} more lines; {footer}"
    rest_of_line, rest_of_screen = "\x1b[K", "\x1b[J"
    shown = [*lines[:room], "", footer]
    return "\x1b[H" + "".join(f"{line}{rest_of_line}\n" for line in shown) + rest_of_screen


def _look() -> Look:
    fallback = (WIDTH_ELSEWHERE, 24)
    return Look(
        width=max(40, shutil.get_terminal_size(fallback).columns),
        encoding=sys.stdout.encoding or "ascii",
        has_colour=_is_terminal() and not os.environ.get("NO_COLOR"),
    )


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
