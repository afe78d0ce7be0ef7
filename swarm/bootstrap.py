"""`./murmur dht`: the node through which others join a swarm. It serves the DHT and relays; no blocks."""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import SwarmError
from swarm.identity import check_temporary_folder
from swarm.listening import check_host_maddrs, check_initial_peers
from swarm.ready_file import check_ready_file, write_ready_file
from swarm.say import say

if TYPE_CHECKING:
    from swarm.dht import Dht

logger = logging.getLogger(__name__)

DEFAULT_HOST = "/ip4/0.0.0.0/tcp/31337"
REFRESH_S = 30.0
EXAMPLES = """examples
  ./murmur dht --identity bootstrap.key
  ./murmur dht --identity bootstrap.key --announce-maddrs /ip4/203.0.113.7/tcp/31337
  ./murmur dht --host-maddrs /ip4/127.0.0.1/tcp/0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `./murmur dht`."""
    parser.description = (
        "A bootstrap and relay node: block servers and bots join the swarm through its address."
    )
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--identity",
        type=Path,
        metavar="FILE",
        help="key file; made on first use. Without it the address changes with every start",
    )
    parser.add_argument(
        "--host-maddrs",
        nargs="+",
        default=[DEFAULT_HOST],
        metavar="ADDRESS",
        help=f"where to listen; port 0 takes any free one (default: {DEFAULT_HOST})",
    )
    parser.add_argument(
        "--announce-maddrs", nargs="+", default=[], metavar="ADDRESS", help="where others reach this machine"
    )
    parser.add_argument(
        "--initial-peers", nargs="+", default=[], metavar="ADDRESS", help="nodes of a swarm to join"
    )
    parser.add_argument(
        "--no-relay",
        dest="relay",
        action="store_false",
        help="for a swarm in which all servers have an open port: carry no traffic for others",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="written once others can join: peer_id and addresses, JSON",
    )


async def run_bootstrap(arguments: argparse.Namespace) -> None:
    """Serve until cancelled. Prints the addresses, one a line. Raises ConfigError for a mistake."""
    check_temporary_folder()
    check_initial_peers(arguments.initial_peers)
    check_host_maddrs(arguments.host_maddrs)
    check_ready_file(arguments.ready_file)
    from swarm.dht import open_dht  # hivemind takes seconds; a mistake is told before
    from swarm.transport import open_transport

    async with (
        open_transport(
            arguments.identity,
            initial_peers=arguments.initial_peers,
            host_maddrs=arguments.host_maddrs,
            announce_maddrs=arguments.announce_maddrs,
            use_relay=arguments.relay,
        ) as transport,
        open_dht(transport, arguments.initial_peers) as dht,
    ):
        say_where(transport.addresses)
        if arguments.ready_file is not None:
            write_ready_file(arguments.ready_file, peer_id=transport.peer_id, addresses=transport.addresses)
        await refresh_forever(dht)


def say_where(addresses: Sequence[str]) -> None:
    """Addresses on standard output, one a line, and on standard error what to do with them."""
    sys.stdout.writelines(f"{address}\n" for address in addresses)
    sys.stdout.flush()
    say("Others join this swarm with --initial-peers and one of these addresses. Ctrl-C ends it.")


async def refresh_forever(dht: "Dht", *, refresh_s: float = REFRESH_S) -> None:
    """Look for neighbours every `refresh_s`; goes on if one look fails."""
    while True:
        await asyncio.sleep(refresh_s)
        try:
            await dht.refresh_neighbours()
        except SwarmError as error:
            logger.warning("%s; trying again in %d s", error, refresh_s)
