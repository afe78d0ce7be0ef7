"""The bootstrap node as a process of its own."""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarm.bootstrap import add_arguments, run_bootstrap
from swarm.errors import ConfigError
from swarm.identity import load_identity
from swarm.ready_file import check_ready_file
from swarm.wire.blocks import PeerId
from tests.swarm.peers import FINGERPRINT, is_relay, node, sealed

COMMAND = """
import argparse, asyncio, sys
from swarm.bootstrap import add_arguments, run_bootstrap
from swarm.ready_file import check_ready_file
from swarm.loop import run
parser = argparse.ArgumentParser()
add_arguments(parser)
try:
    run(run_bootstrap(parser.parse_args()))
except asyncio.CancelledError:
    sys.exit("transformers was imported" if "transformers" in sys.modules else 0)
"""
LOCAL = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0")


@asynccontextmanager
async def bootstrap(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COMMAND, *LOCAL, *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
async def test_peers_meet_at_the_printed_address_until_a_signal_ends_it_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    ready = tmp_path / "ready.json"
    options = ("--identity", str(tmp_path / "me.key"), "--ready-file", str(ready))
    async with bootstrap(*options) as (process, address):
        async with node(address) as (server, server_dht), node(address, client_only=True) as (_, client_dht):
            await server_dht.announce(sealed(server.identity))
            assert len(await client_dht.find_servers(FINGERPRINT)) == 1
        peer_id = load_identity(tmp_path / "me.key").peer_id
        assert json.loads(ready.read_text()) == {"peer_id": peer_id, "addresses": [address]}
        process.send_signal(number)
        async with asyncio.timeout(10):
            out, err = await process.communicate()
    assert process.returncode == 0
    assert out == b""
    assert err.decode().splitlines() == [
        "Others join this swarm with --initial-peers and one of these addresses. Ctrl-C ends it."
    ]


async def test_two_bootstrap_nodes_form_one_swarm_and_only_one_of_them_relays() -> None:
    async with (
        bootstrap() as (_, first),
        bootstrap("--initial-peers", first, "--no-relay") as (_, second),
        node(first) as (server, server_dht),
        node(second, client_only=True) as (_, client_dht),
    ):
        await server_dht.announce(sealed(server.identity))
        assert len(await client_dht.find_servers(FINGERPRINT)) == 1
        nodes = [(PeerId(address.rpartition("/")[2]), [address]) for address in (first, second)]
        assert [await is_relay(*node, asks=server) for node in nodes] == [True, False]


async def test_a_ready_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args([*LOCAL, "--ready-file", str(tmp_path / "nowhere" / "ready.json")])
    with pytest.raises(ConfigError, match="ready file"):
        await run_bootstrap(arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", [Path("/dev/null"), Path("/tmp")])
async def test_a_ready_file_takes_the_place_of_no_device_and_no_folder(path: Path) -> None:
    with pytest.raises(ConfigError, match="something else of that name"):
        check_ready_file(path)
