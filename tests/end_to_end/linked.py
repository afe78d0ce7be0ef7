"""Real server processes that others reach over links, which a test can make slow and quick again."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from bench.links import Link, free_port, maddr_of, open_link
from tests.end_to_end.processes import ProcessSwarm, Service


@dataclass(frozen=True)
class LinkedServer:
    """A server, and the link that leads to it."""

    service: Service
    link: Link


@asynccontextmanager
async def linked_server(
    swarm: ProcessSwarm, blocks: str, delay_s: float = 0.0
) -> AsyncIterator[LinkedServer]:
    """A server that others reach over a link with `delay_s` in each direction."""
    port = free_port()
    async with open_link(port, delay_s=delay_s) as link:
        own, announced = ("--host-maddrs", maddr_of(port)), ("--announce-maddrs", link.maddr)
        service = swarm.begin(blocks, *own, *announced)
        await asyncio.to_thread(service.wait_ready)
        yield LinkedServer(service, link)
        assert link.bytes_relayed > 0


class Chain:
    """Servers that hold a model together, and nobody else does: each answer runs through all of them."""

    def __init__(self, swarm: ProcessSwarm, spans: tuple[str, ...], servers: list[LinkedServer]) -> None:
        self._swarm = swarm
        self._spans = spans
        self._servers = servers

    def delay(self, delay_s: float) -> None:
        """From now on each way to a server takes so long."""
        for server in self._servers:
            server.link.delay_s = delay_s

    async def start_another(self, number: int) -> None:
        """Start a server that hosts the blocks of one; returns when it is online."""
        await asyncio.to_thread(self._swarm.start, self._spans[number])

    async def kill(self, number: int) -> None:
        """End one as a power cut would."""
        service = self._servers[number].service
        service.send(signal.SIGKILL)
        assert await asyncio.to_thread(service.wait_exit, 10.0) == -signal.SIGKILL


@asynccontextmanager
async def open_chain(swarm: ProcessSwarm, *spans: str) -> AsyncIterator[Chain]:
    """Servers for these spans, over links without delay."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(linked_server(swarm, span)) for span in spans]
        yield Chain(swarm, spans, servers)
