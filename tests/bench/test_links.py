"""The emulated links: as slow as they say, in order, and breakable."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from bench.links import Link, open_link
from swarm.streams import EndOfStream
from swarm.transport import open_transport
from swarm.wire.frames import FROM_CHAIN
from swarm.wire.messages import Pages
from tests.relay import open_slow_transport
from tests.swarm.test_transport import ECHO, LIMIT, echo

PAGES = Pages(block=0, offset=0, last=True)


@asynccontextmanager
async def echoing(
    **options: Any,
) -> AsyncIterator[tuple[Link, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A link to a TCP server that sends everything back, and a connection through it."""

    async def send_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(send_back, "127.0.0.1", 0)
    async with server, open_link(server.sockets[0].getsockname()[1], **options) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        try:
            yield link, reader, writer
        finally:
            writer.close()


async def test_bytes_are_delayed_in_both_directions_and_stay_in_order() -> None:
    async with echoing(delay_s=0.05) as (link, reader, writer):
        sent = bytes(range(256)) * 4096
        started = time.monotonic()
        writer.write(sent)
        assert await reader.readexactly(1) == sent[:1]
        assert 0.1 <= time.monotonic() - started < 0.4
        assert await reader.readexactly(len(sent) - 1) == sent[1:]
        assert time.monotonic() - started < 1.5  # a pipe, not a pause for each chunk
        assert link.bytes_relayed == 2 * len(sent)


async def test_bandwidth_is_bounded() -> None:
    async with echoing(bytes_per_s=1_000_000) as (_, reader, writer):
        started = time.monotonic()
        writer.write(bytes(300_000))
        await reader.readexactly(300_000)
        assert 0.3 <= time.monotonic() - started < 1.0


async def test_an_end_passes_through_and_a_cut_breaks_both_ends() -> None:
    async with echoing() as (_, reader, writer):
        writer.write(b"last words")
        writer.write_eof()
        assert await reader.read() == b"last words"
    async with echoing() as (link, reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
        link.cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)


async def test_peers_talk_through_the_announced_address() -> None:
    async with (
        open_slow_transport(delay_s=0.05) as (server, link),
        open_transport(client_only=True) as client,
    ):
        await server.serve(ECHO, echo, limit=LIMIT, decoder=FROM_CHAIN)
        assert server.addresses == (f"{link.maddr}/p2p/{server.peer_id}",)
        stream = await client.open_stream(
            server.peer_id, ECHO, server.addresses, limit=LIMIT, decoder=FROM_CHAIN
        )
        await stream.write(PAGES)
        await stream.read()
        started = time.monotonic()
        await stream.write(PAGES, (torch.zeros(4096),))
        await stream.read()
        assert 0.1 <= time.monotonic() - started < 0.4
        link.cut()
        async with asyncio.timeout(5):
            with pytest.raises(EndOfStream):
                await stream.read()
