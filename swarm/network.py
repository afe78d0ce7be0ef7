"""One model's swarm as a client sees it: who serves it, over which connections, and which route to take."""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from swarm.background import running
from swarm.connections import Connection, Connections, open_connections
from swarm.dht import Dht
from swarm.directory import ServerDirectory
from swarm.errors import NoRouteError, PeerUnreachable
from swarm.health import Health
from swarm.routing import NO_ROOM_S, find_route
from swarm.streams import FrameStream
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, Route
from swarm.wire.frames import FROM_CHAIN, MAX_CHAIN_FRAME_BYTES
from swarm.wire.messages import Hello
from swarm.wire.protocols import CHAIN
from swarm.wire.records import BadRecord

logger = logging.getLogger(__name__)

ROUTE_RETRY_S = 0.5


@dataclass
class Network:
    """Servers, connections and history of failures for one model. See `open_network`."""

    transport: Transport
    directory: ServerDirectory
    connections: Connections
    num_blocks: int
    fingerprint: str
    dht: Dht
    health: Health = field(default_factory=lambda: Health(time.monotonic))

    async def reach_route(
        self, lost: Collection[PeerId], keep: Route, within_s: float, num_tokens: int = 0
    ) -> Route:
        """Find a route all of whose servers answer; waits for servers to come, `within_s` at most.

        Servers with room for `num_tokens`, and those of `keep`, are preferred.
        Raises NoRouteError, naming the blocks, if none could be had.
        """
        deadline = time.monotonic() + within_s
        avoid = set(lost)
        while True:
            try:
                route = self._find(avoid, keep, num_tokens)
                unreachable = await self._reach(route)
            except NoRouteError:
                if time.monotonic() >= deadline:
                    raise
                avoid.clear()
                await self._wait_for_servers()
                continue
            if not unreachable:
                return route
            avoid |= unreachable

    def has_room_elsewhere(self, busy: PeerId, route: Route, num_tokens: int) -> bool:
        """Tell whether there is a way around `busy`: other servers of `route`, or any with enough room."""
        try:
            self._find(self._without_room(route, num_tokens) | {busy}, route, num_tokens)
        except NoRouteError:
            return False
        return True

    def addresses(self, route: Route) -> dict[PeerId, tuple[str, ...]]:
        """Where the servers of a route are dialled."""
        return {hop.peer_id: self._addresses(hop.peer_id) for hop in route}

    def connection(self, peer_id: PeerId) -> Connection | None:
        """The open control connection to a server."""
        return self.connections.find(peer_id)

    async def open_chain(self, peer_id: PeerId, hello: Hello) -> FrameStream:
        """Open a chain stream and greet. Raises PeerUnreachable."""
        stream = await self.transport.open_stream(
            peer_id, CHAIN, self._addresses(peer_id), limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN
        )
        await stream.write(hello)
        return stream

    def _find(self, avoid: Collection[PeerId], keep: Route, num_tokens: int) -> Route:
        penalties = Counter(dict.fromkeys(self._without_room(keep, num_tokens), NO_ROOM_S))
        penalties.update(self.health.avoiding() | dict.fromkeys(avoid, math.inf))
        return find_route(
            self.directory.servers,
            num_blocks=self.num_blocks,
            rtts_s=self.connections.rtts_s,
            avoiding=penalties,
            keep=keep,
        )

    def _without_room(self, keep: Route, num_tokens: int) -> set[PeerId]:
        """Servers that cannot take `num_tokens` now and hold nothing of them yet."""
        kept = {hop.peer_id for hop in keep}
        servers = (server for server in self.directory.servers if server.peer_id not in kept)
        return {server.peer_id for server in servers if server.free_tokens < num_tokens}

    async def _reach(self, route: Route) -> set[PeerId]:
        """Connect to all servers of a route at once; returns those that cannot be reached."""
        unreachable: set[PeerId] = set()

        async def reach(peer_id: PeerId) -> None:
            try:
                connection = await self.connections.reach(peer_id, self._addresses(peer_id))
            except PeerUnreachable as error:
                logger.info("cannot use %s: %s", peer_id, error)
                self.health.failed(peer_id)
                unreachable.add(peer_id)
            else:
                if connection.is_draining:
                    unreachable.add(peer_id)

        async with asyncio.TaskGroup() as group:
            for hop in route:
                group.create_task(reach(hop.peer_id))
        return unreachable

    async def _wait_for_servers(self) -> None:
        """Until somebody new is known, or a little while: a pause after a failure may end."""
        changed = asyncio.Event()
        stop_listening = self.directory.listen(changed.set)
        try:
            async with asyncio.timeout(ROUTE_RETRY_S):
                await changed.wait()
        except TimeoutError:
            return
        finally:
            stop_listening()

    def _addresses(self, peer_id: PeerId) -> tuple[str, ...]:
        record = self.directory.find(peer_id)
        return record.addresses if record else ()


@asynccontextmanager
async def open_network(
    transport: Transport, dht: Dht, fingerprint: str, num_blocks: int
) -> AsyncIterator[Network]:
    """Watch one model's servers for the length of the block."""
    directory = ServerDirectory(fingerprint, dht.find_servers)

    def on_record(peer_id: PeerId, raw: bytes) -> None:
        try:
            directory.apply(raw, peer_id)
        except BadRecord as error:
            logger.info("%s pushed a bad record: %s", peer_id, error)

    await directory.refresh()
    async with open_connections(transport, on_record) as connections, running(directory.refresh_forever()):
        yield Network(transport, directory, connections, num_blocks, fingerprint, dht)
