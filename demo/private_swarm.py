"""A swarm for one person: a bootstrap node and three block servers, each a process of its own.

When a server is lost, a new one takes its blocks, as a volunteer would. A new bootstrap node takes the lost
one's address. Whoever comes later joins through all that are there.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.background import running
from swarm.errors import ConfigError, MurmurError, SwarmError
from swarm.wire.blocks import PeerId, Span

LOCALHOST = "/ip4/127.0.0.1/tcp/0"
BOOTSTRAP = "bootstrap"
READY_S = 60.0
TRIES = 4
RETRY_S = 0.5
TICK_S = 0.05
NUM_LAST_WORDS = 12  # a traceback's last calls, and its error

Say = Callable[[str], None]


def run_service(order: dict[str, Any]) -> None:
    """In a process of its own: the bootstrap node, or a block server."""
    import torch

    from swarm.loop import run

    torch.set_num_threads(1)
    try:
        run(_bootstrap(order) if order["kind"] == "dht" else _block_server(order))
    except asyncio.CancelledError:
        return
    except MurmurError as error:
        print(f"{order['start']}: {error}", flush=True)  # noqa: T201


async def _bootstrap(order: dict[str, Any]) -> None:
    from swarm.dht import open_dht
    from swarm.ready_file import write_ready_file
    from swarm.transport import open_transport

    peers = order["initial_peers"]
    async with (
        open_transport(
            Path(order["identity"]),
            initial_peers=peers,
            host_maddrs=order["host_maddrs"],
            use_relay=False,
        ) as transport,
        open_dht(transport, peers),
    ):
        write_ready_file(
            Path(order["ready_file"]), peer_id=transport.peer_id, addresses=list(transport.addresses)
        )
        await asyncio.Event().wait()


async def _block_server(order: dict[str, Any]) -> None:
    from server.block_server import Options, serve

    options = Options(
        model=order["model"],
        initial_peers=tuple(order["initial_peers"]),
        blocks=Span(*order["blocks"]),
        host_maddrs=tuple(order["host_maddrs"]),
        use_relay=False,
        ready_file=Path(order["ready_file"]),
        public_name=order["start"],
        kv_tokens=8192,
    )
    await serve(options, lambda sentence: print(f"{order['start']}: {sentence}", flush=True))  # noqa: T201


@dataclass
class Service:
    """A process of the swarm."""

    name: str
    span: Span | None
    ready_file: Path
    log: Path
    pid: int = 0
    peer_id: PeerId | None = None
    addresses: tuple[str, ...] = ()
    has_ended: bool = False

    @property
    def title(self) -> str:
        """How a person knows it."""
        if self.span is None:
            return "the bootstrap node"
        return f"{self.name} (blocks {self.span.start}-{self.span.end - 1})"


class PrivateSwarm:
    """The processes of the demo, by way of the zygote. See `open_swarm`."""

    def __init__(self, line: socket.socket, model: str, folder: Path, say: Say) -> None:
        self.services: dict[str, Service] = {}
        self._line = line
        self._model = model
        self._folder = folder
        self._say = say
        self._names: dict[PeerId, str] = {}
        self._num_started = 0
        self._is_up = False
        self._is_ending = False

    @property
    def servers(self) -> list[Service]:
        """The block servers, first blocks first."""
        return sorted((s for s in self.services.values() if s.span), key=lambda s: s.span.start)  # type: ignore[union-attr]

    @property
    def initial_peers(self) -> tuple[str, ...]:
        """How to join this swarm, now and later."""
        return self.services[BOOTSTRAP].addresses

    def find(self, peer_id: PeerId) -> Service | None:
        """The server of this id, unless another has taken its place."""
        return next((service for service in self.services.values() if service.peer_id == peer_id), None)

    def name_of(self, peer_id: PeerId) -> str:
        """The server's name on the screen, also of one that is lost."""
        return self._names.get(peer_id, peer_id[-6:])

    async def start(self, spans: list[Span]) -> None:
        """Start everything; returns when every server is online. Raises ConfigError if one fails."""
        await self._wait_ready(self._begin(BOOTSTRAP, None, [LOCALHOST]))
        servers = [self._begin(f"server {number}", span, [LOCALHOST]) for number, span in enumerate(spans, 1)]
        for server in servers:
            await self._wait_ready(server)
        self._is_up = True

    def kill(self, service: Service) -> None:
        """End a server as a power cut would."""
        if not service.has_ended:
            with suppress(ProcessLookupError):
                os.kill(service.pid, signal.SIGKILL)

    def end_frozen(self, server: Service) -> None:
        """End a server that does not answer, so that another takes its place."""
        if not server.has_ended:
            self._say(f"{server.name} does not answer: ending it and starting another")
            self.kill(server)

    async def watch_forever(self) -> None:
        """Replace what is lost. Raises SwarmError if the zygote is, with which all else ends."""
        async with asyncio.TaskGroup() as group:
            async for event in self._events():
                self._note(event, group)
            if not self._is_ending:
                raise self._all_lost()

    def end(self) -> None:
        """Tell the zygote to end everything."""
        self._is_ending = True
        with suppress(OSError):
            self._line.sendall(b'{"stop": true}\n')

    def _note(self, event: dict[str, Any], group: asyncio.TaskGroup) -> None:
        if "started" in event:
            self.services[event["started"]].pid = event["pid"]
            return
        service = self.services.get(event["exited"])
        if service is None or service.pid != event["pid"] or self._is_ending:
            return
        service.has_ended = True
        if service.peer_id is not None:
            what = "a new server takes its blocks" if service.span else "a new one takes its place"
            self._say(f"{service.title} is gone; {what}")
            group.create_task(self._replace(service))
        elif not self._is_up:
            raise self._failure(service, "could not be started")

    async def _replace(self, lost: Service) -> None:
        """Start another until one is there. Raises ConfigError if it cannot be."""
        for tries_left in reversed(range(TRIES)):
            service = await self._begin_again(lost)
            try:
                await self._wait_ready(service)
                break
            except ConfigError:
                if not tries_left:
                    raise
                self.kill(service)
                await asyncio.sleep(RETRY_S)
        self._say(f"{service.title} is back with a new process, {service.pid}")

    async def _begin_again(self, lost: Service) -> Service:
        if lost.span is None:  # those who lose everybody look for it where it was
            return self._begin(
                lost.name, None, [address.rpartition("/p2p/")[0] for address in lost.addresses]
            )
        while not self._peers_beside(lost.name):  # noqa: ASYNC110 - until the bootstrap node is back
            await asyncio.sleep(TICK_S)
        return self._begin(lost.name, lost.span, [LOCALHOST])

    def _peers_beside(self, name: str) -> list[str]:
        """The addresses of those who are there."""
        there = (s for s in self.services.values() if s.name != name and s.peer_id and not s.has_ended)
        return [address for service in there for address in service.addresses]

    def _begin(self, name: str, span: Span | None, host_maddrs: list[str]) -> Service:
        self._num_started += 1
        base = self._folder / str(self._num_started)
        service = Service(name, span, base.with_suffix(".json"), base.with_suffix(".log"))
        self.services[name] = service
        order: dict[str, Any] = {
            "start": name,
            "kind": "server" if span else "dht",
            "ready_file": str(service.ready_file),
            "log": str(service.log),
            "host_maddrs": host_maddrs,
            "initial_peers": self._peers_beside(name),
        }
        if span is not None:
            order |= {"model": self._model, "blocks": [span.start, span.end]}
        else:
            order |= {"identity": str(self._folder / "bootstrap.key")}
        try:
            self._line.sendall(json.dumps(order).encode() + b"\n")
        except OSError as error:
            raise self._all_lost() from error
        return service

    async def _wait_ready(self, service: Service) -> None:
        try:
            async with asyncio.timeout(READY_S):
                while not service.ready_file.exists() and not service.has_ended:  # noqa: ASYNC110 - the only signs
                    await asyncio.sleep(TICK_S)
        except TimeoutError as error:
            raise self._failure(service, f"is not ready after {READY_S:.0f} s") from error
        if service.has_ended:
            raise self._failure(service, "could not be started")
        ready = json.loads(service.ready_file.read_text(encoding="utf-8"))
        service.peer_id, service.addresses = PeerId(ready["peer_id"]), tuple(ready["addresses"])
        self._names[service.peer_id] = service.name

    def _all_lost(self) -> SwarmError:
        return SwarmError("the demo's processes are gone, as the one that starts them has ended: start again")

    def _failure(self, service: Service, what: str) -> ConfigError:
        """Its log goes with the folder when the demo ends, so that the sentence has its last lines."""
        try:
            words = service.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            words = []
        tail = "".join(f"\n  {line}" for line in words[-NUM_LAST_WORDS:])
        return ConfigError(f"{service.name} {what}{'; its last words:' if tail else ''}{tail}")

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        """What the zygote says, until it ends."""
        self._line.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._line.dup())
        try:
            with suppress(ConnectionError):  # it ended before it had read all that we said
                while raw := await reader.readline():
                    yield json.loads(raw)
        finally:
            writer.close()


@asynccontextmanager
async def open_swarm(
    line: socket.socket, model: str, folder: Path, spans: list[Span], say: Say
) -> AsyncIterator[PrivateSwarm]:
    """Start a private swarm; it ends with the block."""
    swarm = PrivateSwarm(line, model, folder, say)
    async with running(swarm.watch_forever()):
        try:
            await swarm.start(spans)
            yield swarm
        finally:
            swarm.end()
