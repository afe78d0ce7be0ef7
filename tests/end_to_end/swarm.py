"""A swarm in one process: block servers and clients with real p2pds, on 127.0.0.1, that can be killed.

Every peer lives in a task of its own. `kill` is what kill -9 of its machine looks like from outside: p2pd is
gone at once and nobody says farewell. `freeze` is a machine that stands still: its p2pd is stopped, so
neither heartbeats nor anything else leave it, while its connections stay open.
"""

import asyncio
import copy
import math
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from server.attention import Chunk
from server.executor import Executor
from server.host import Host, HostedModel
from server.kv_cache import KVPool
from server.kv_extents import Pair
from server.kv_spill import SpillStore
from server.scheduler import Limits
from server.serving import Serving, open_chain
from server.session_effects import SessionKey
from swarm.background import running
from swarm.checkpoint.rope_lengths import short_positions
from swarm.dht import Dht, open_dht
from swarm.epochs import SaveTicket
from swarm.errors import PeerUnreachable, SwarmError
from swarm.inference import InferenceSession, Lengths, open_session
from swarm.inputs import Inputs
from swarm.network import Network, open_network
from swarm.streams import FrameStream
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import Hop, PeerId, Route, Span
from swarm.wire.messages import Hello, NextHop
from swarm.wire.records import ServerRecord, seal_record
from tests.end_to_end.exact import SmallModel

LOG_BYTES = 64 << 20
RECORD_LIFE_S = 30.0
RENEW_S = 10.0
CLEAN_S = 8.0
GONE_S = 10.0


async def until(is_true: Callable[[], object], within_s: float, what: str) -> None:
    """Wait until `is_true()`. Raises AssertionError with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.005)


class Peer:
    """Somebody in the network, who can die. Start with `start`.

    Nobody relays: a p2pd that is to do so takes twice as long to start.
    """

    transport: Transport

    def __init__(self) -> None:
        self.is_dead = False
        self._task: asyncio.Task[None] | None = None
        self._may_leave = asyncio.Event()

    @property
    def peer_id(self) -> PeerId:
        return self.transport.peer_id

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is left, after `kill`."""
        return self._task is not None and self._task.done()

    async def start(self) -> None:
        """Live in a task of our own. Raises what prevents it."""
        started = asyncio.Event()
        self._task = asyncio.create_task(self._live(started))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    async def _live(self, started: asyncio.Event) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self.open(stack)
                started.set()
                await self._may_leave.wait()
        except (SwarmError, BaseExceptionGroup):
            if not self.is_dead:  # the dead complain that their p2pd is gone
                raise

    async def open(self, stack: AsyncExitStack) -> None:
        """Begin what ends with `stack`."""
        raise NotImplementedError

    def kill(self) -> None:
        """Die without farewell, like the machine that loses its power."""
        self.is_dead = True
        self._signal(signal.SIGKILL)
        assert self._task is not None
        self._task.cancel()

    def freeze(self) -> None:
        """Stand still: connections stay open, and nothing leaves any more."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.transport.p2p._child.pid, number)

    async def leave(self) -> None:
        """End, and wait for the end."""
        self._may_leave.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=GONE_S)
            assert self._task.done(), "a peer does not end"
            if not self._task.cancelled():
                self._task.result()


class Bootstrap(Peer):
    """Where the others meet, and what keeps their records. Nobody kills it."""

    async def open(self, stack: AsyncExitStack) -> None:
        self.transport = await stack.enter_async_context(open_transport(use_relay=False))
        await stack.enter_async_context(open_dht(self.transport))


@dataclass(frozen=True)
class Offer:
    """What a block server offers: blocks `[start, end)`, room for so many tokens, at a pretended speed."""

    start: int
    end: int
    room_tokens: int = 8192
    blocks_per_s: float = 1000.0
    spill_bytes: int = 0
    garble: Callable[[torch.Tensor], torch.Tensor] | None = None
    """What it makes of every output, if it is no honest server."""


class WatchedHost(Host):
    """A host whose copies of pages can be counted, and made to fail."""

    num_exports = 0

    def before_export(self) -> None:
        """Called before pages are copied; what it raises is the copy's end."""

    async def export(self, key: SessionKey, span: Span, position: int, tag: int) -> list[Pair]:
        self.num_exports += 1
        self.before_export()
        return await super().export(key, span, position, tag)


class BlockServer(Peer):
    """A block server without its main program: no measuring, no placing, no renewed announcement."""

    host: "WatchedHost"

    def __init__(self, model: SmallModel, offer: Offer, initial_peers: Sequence[str]) -> None:
        super().__init__()
        self.offer = offer
        self.span = Span(offer.start, offer.end)
        self.cannot_reach: set[PeerId] = set()
        self._model = model
        self._initial_peers = initial_peers
        spill = SpillStore(offer.spill_bytes, Path(tempfile.gettempdir())) if offer.spill_bytes else None
        windows = model.span(self.span).windows
        self.pool = KVPool(offer.room_tokens * len(self.span), spill_to=spill, windows=windows)

    async def open(self, stack: AsyncExitStack) -> None:
        self.transport = await stack.enter_async_context(open_transport(use_relay=False))
        for address in self._initial_peers:  # quicker than to let p2pd join them before it listens
            await self.transport.connect(PeerId(address.rpartition("/p2p/")[2]), [address])
        runner = self._model.span(self.span)
        garble = self.offer.garble
        if garble is not None:
            honest, runner = runner, copy.copy(runner)  # others run the same span honestly
            runner.turn = None  # where it hangs, they do not

            def garbled(chunks: Sequence[Chunk]) -> list[torch.Tensor]:
                with honest.turn or nullcontext():
                    outputs = honest.run(chunks)
                return [garble(output) for output in outputs]

            runner.run = garbled  # type: ignore[method-assign]
        # Bits of bf16 depend on where a prompt is cut, and that on how long batches take.
        limits = Limits(slowdown=math.inf if runner.dtype is torch.bfloat16 else 2.0)
        executor = await stack.enter_async_context(Executor(runner, self.pool, limits=limits))
        checkpoint = self._model.checkpoint
        layout = tuple(runner.kv_layout())
        hosted = HostedModel(self.span, checkpoint.fingerprint, checkpoint.hidden_size, runner.dtype, layout)
        self.host = WatchedHost(hosted, self.pool, executor, self._open_chain, LOG_BYTES)
        await stack.enter_async_context(running(self.host.run_forever()))
        self._serving = Serving(self.transport, self.host)
        await self._serving.start()
        await self._announce()
        await stack.enter_async_context(running(self._announce_forever()))

    def drain(self) -> None:
        """Take no more sessions, and let those we have go elsewhere; serve until then."""
        self.host.table.is_draining = True
        self._serving.push_draining(int(GONE_S * 1000))

    async def _announce(self) -> None:
        """Not a node of the DHT for longer than this takes: one whose p2pd was killed needs 3 s to end.

        As a client: what others stored here would be lost as soon as we leave.
        """
        async with open_dht(self.transport, self._initial_peers, is_client=True) as dht:
            await dht.announce(seal_record(self.record(), self.transport.identity.sign))

    async def _announce_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._announce()

    def record(self) -> ServerRecord:
        """What the swarm is told about us."""
        now = time.time()
        return ServerRecord(
            peer=self.peer_id,
            sequence=int(now * 1000),
            issued_at=now,
            expires_at=now + RECORD_LIFE_S,
            fingerprint=self._model.checkpoint.fingerprint,
            start=self.span.start,
            end=self.span.end,
            state="online",
            throughput=100.0,
            inference_rps=self.offer.blocks_per_s,
            free_tokens=self.offer.room_tokens,
            addresses=self.transport.addresses,
        )

    @property
    def executed_tokens(self) -> int:
        """Tokens that the open sessions have computed here, replays included."""
        return sum(session.counters.executed_tokens for session in self.host.table.sessions())

    @property
    def recomputed_tokens(self) -> int:
        """Tokens that the open sessions have computed here although they held them already."""
        return sum(session.counters.recomputed_below_commit for session in self.host.table.sessions())

    async def _open_chain(self, next_hop: NextHop, hello: Hello) -> FrameStream:
        if next_hop.peer in self.cannot_reach:
            raise PeerUnreachable("a wall is in between", PeerId(next_hop.peer))
        return await open_chain(self.transport, next_hop, hello)


class _ChosenServers:
    """A DHT that finds some servers and no others."""

    def __init__(self, dht: Dht, servers: Sequence[BlockServer]) -> None:
        self._dht = dht
        self._servers = servers

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        chosen = {server.peer_id for server in self._servers}
        records = await self._dht.find_servers(fingerprint)
        return tuple(record for record in records if record.peer_id in chosen)


class Client(Peer):
    """A client: its place in the network and its view of some servers, for all of its sessions."""

    network: Network

    def __init__(
        self,
        model: SmallModel,
        servers: Sequence[BlockServer],
        initial_peers: Sequence[str],
        identity: Path | None,
    ) -> None:
        super().__init__()
        self._model = model
        self._servers = servers
        self._addresses = initial_peers
        self._identity = identity

    async def open(self, stack: AsyncExitStack) -> None:
        self.transport = await stack.enter_async_context(
            open_transport(self._identity, initial_peers=self._addresses, use_relay=False, client_only=True)
        )
        self._dht = await stack.enter_async_context(open_dht(self.transport, self._addresses))
        self.network = await stack.enter_async_context(self._open_network(self._servers))

    def _open_network(self, servers: Sequence[BlockServer]) -> AbstractAsyncContextManager[Network]:
        checkpoint = self._model.checkpoint
        chosen = cast(Dht, _ChosenServers(self._dht, servers))
        return open_network(self.transport, chosen, checkpoint.fingerprint, checkpoint.num_blocks)

    @asynccontextmanager
    async def session(
        self,
        *among: BlockServer,
        ticket: bytes | None = None,
        ids: Sequence[int] = (),
        save_ticket: SaveTicket | None = None,
    ) -> AsyncIterator[InferenceSession]:
        """Open a session, `among` these servers alone if any are named.

        With `ticket`, re-attach to an earlier one's session, whose history is `ids`.
        """
        inputs = Inputs(self._model.ends.embed)
        inputs.append_ids(ids)
        async with AsyncExitStack() as stack:
            network = await stack.enter_async_context(self._open_network(among)) if among else self.network
            session = open_session(
                network,
                inputs,
                ticket=ticket,
                save_ticket=save_ticket,
                lengths=Lengths(short=short_positions(self._model.checkpoint.config)),
            )
            yield await stack.enter_async_context(session)


class Swarm:
    """Block servers of one model, and a client. See `open_swarm`."""

    def __init__(self, model: SmallModel, bootstrap: Bootstrap, stack: AsyncExitStack) -> None:
        self.model = model
        self._initial_peers = bootstrap.transport.addresses
        self.servers: list[BlockServer] = []
        self._stack = stack

    async def add(self, *offers: Offer) -> list[BlockServer]:
        """Start servers, all at once."""
        servers = [BlockServer(self.model, offer, self._initial_peers) for offer in offers]
        async with asyncio.TaskGroup() as group:
            for server in servers:
                self._stack.push_async_callback(server.leave)
                group.create_task(server.start())
        self.servers += servers
        return servers

    async def client(
        self, servers: Sequence[BlockServer] | None = None, identity: Path | None = None
    ) -> Client:
        """Start a client that knows `servers` (default: all there are or will be)."""
        known = self.servers if servers is None else servers
        client = Client(self.model, known, self._initial_peers, identity)
        self._stack.push_async_callback(client.leave)
        await client.start()
        return client

    def server_of(self, hop: Hop) -> BlockServer:
        """The server of a hop."""
        return next(server for server in self.servers if server.peer_id == hop.peer_id)

    def path(self, session: InferenceSession) -> list[BlockServer]:
        """The servers that a session uses now, in order."""
        return [self.server_of(hop) for hop in session.route]

    @property
    def living(self) -> list[BlockServer]:
        """Servers that have not been killed."""
        return [server for server in self.servers if not server.is_dead]

    async def check_clean(self) -> None:
        """No server that lives holds a page, and no session is driven any more."""
        await until(lambda: not any(s.pool.pages_in_use for s in self.living), CLEAN_S, "pages are free")
        await until(lambda: not _drivers(), CLEAN_S, "no session is driven")


def _drivers() -> list[asyncio.Task[object]]:
    names = ((task, getattr(task.get_coro(), "__qualname__", "")) for task in asyncio.all_tasks())
    return [task for task, name in names if name.startswith("SessionDriver.")]


@asynccontextmanager
async def open_swarm(model: SmallModel, *offers: Offer) -> AsyncIterator[Swarm]:
    """Run block servers for the length of the block; more can be added, clients too."""
    async with AsyncExitStack() as stack:
        bootstrap = Bootstrap()
        stack.push_async_callback(bootstrap.leave)
        await bootstrap.start()
        swarm = Swarm(model, bootstrap, stack)
        await swarm.add(*offers)
        yield swarm


def spans(route: Route) -> list[tuple[int, int]]:
    """Blocks of the hops of a route."""
    return [(hop.span.start, hop.span.end) for hop in route]


torch.set_num_threads(1)
