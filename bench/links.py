"""Slow links on one machine: a loopback relay with delay and bandwidth, for kernels without netem.

A peer listens at one port and announces another, the relay's:

    port = free_port()
    async with open_link(port, delay_s=0.05) as link:          # 100 ms round trip
        open_transport(host_maddrs=(maddr_of(port),), announce_maddrs=(link.maddr,))

Only connections that are dialled through the announced address are slow: in both directions, each delayed
on its own. Bytes are kept in order and delayed from the moment they come, so a link is a pipe, not a pause.
"""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 64 << 10
MAX_CHUNKS_ON_THE_WAY = 1024  # 64 MiB: what a long fat pipe holds, 100 ms at 5 Gbit/s

OnTheWay = asyncio.Queue[tuple[float, bytes]]


def maddr_of(port: int) -> str:
    """Multiaddress of a TCP port of this machine."""
    return f"/ip4/127.0.0.1/tcp/{port}"


def free_port() -> int:
    """A TCP port that nobody uses now; somebody may before we do, which tests and measurements accept."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Link:
    """A relay from its own port to another one of this machine. See `open_link`."""

    def __init__(self, target_port: int, delay_s: float, bytes_per_s: float) -> None:
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self.port = 0
        self.bytes_relayed = 0
        self._target_port = target_port
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def maddr(self) -> str:
        """The address to announce."""
        return maddr_of(self.port)

    def cut(self) -> None:
        """Break all connections, as a network does: without a word from either end."""
        for task in self._connections:
            task.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pipe(reader, far_writer))
                group.create_task(self._pipe(far_reader, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # a broken connection is what a link may have; this is the top of its task
        finally:
            self._connections.discard(task)
            for each in writers:
                each.transport.abort()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read at once, write when it is due: (due, bytes) wait in between."""
        on_the_way: OnTheWay = asyncio.Queue(MAX_CHUNKS_ON_THE_WAY)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_in(reader, on_the_way))
            group.create_task(self._let_out(writer, on_the_way))

    async def _take_in(self, reader: asyncio.StreamReader, on_the_way: OnTheWay) -> None:
        clock, sent_at, chunk = asyncio.get_running_loop().time, 0.0, b"?"
        while chunk:
            chunk = await reader.read(CHUNK_BYTES)
            sent_at = max(sent_at, clock()) + len(chunk) / self.bytes_per_s
            await on_the_way.put((sent_at + self.delay_s, chunk))
            if (ahead_s := sent_at - clock()) > CHUNK_BYTES / self.bytes_per_s:
                await asyncio.sleep(ahead_s)  # a slow line accepts slowly

    async def _let_out(self, writer: asyncio.StreamWriter, on_the_way: OnTheWay) -> None:
        clock, chunk = asyncio.get_running_loop().time, b"?"
        while chunk:
            due, chunk = await on_the_way.get()
            if (wait_s := due - clock()) > 0:
                await asyncio.sleep(wait_s)
            writer.write(chunk)
            self.bytes_relayed += len(chunk)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def open_link(
    target_port: int, *, delay_s: float = 0.0, bytes_per_s: float = math.inf
) -> AsyncIterator[Link]:
    """Relay connections to `target_port`, which need not be open yet.

    `delay_s` and `bytes_per_s` hold for each direction and may be changed on the way.
    """
    link = Link(target_port, delay_s, bytes_per_s)
    server = await asyncio.start_server(link._relay, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        link.cut()
        if link._connections:
            await asyncio.wait(link._connections)
