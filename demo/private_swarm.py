"""A swarm for one person: a bootstrap node and three block servers, each a process of its own.

When a server is lost, a new one takes its blocks, as a volunteer would.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.background import running
from swarm.errors import ConfigError, MurmurError
from swarm.wire.blocks import PeerId, Span

LOCALHOST = "/ip4/127.0.0.1/tcp/0"
READY_S = 60.0
STOP_S = 6.0
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

    async with open_transport(host_maddrs=(LOCALHOST,)) as transport, open_dht(transport):
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
        host_maddrs=(LOCALHOST,),
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

    @property
    def title(self) -> str:
        """How a person knows it."""
        assert self.span is not None
        return f"{self.name} (blocks {self.span.start}-{self.span.end - 1})"


class PrivateSwarm:
    """The processes of the demo, by way of the zygote. See `open_swarm`."""

    def __init__(self, line: socket.socket, model: str, folder: Path, say: Say) -> None:
        self.services: dict[str, Service] = {}
        self._line = line
        self._model = model
        self._folder = folder
        self._say = say
        self._num_started = 0
        self._is_ending = False

    @property
    def servers(self) -> list[Service]:
        """The block servers, first blocks first."""
        return sorted((s for s in self.services.values() if s.span), key=lambda s: s.span.start)  # type: ignore[union-attr]

    @property
    def initial_peers(self) -> tuple[str, ...]:
        """How to join this swarm."""
        return self.services["bootstrap"].addresses

    def name_of(self, peer_id: PeerId) -> str:
        """The server's name on the screen."""
        return next((s.name for s in self.services.values() if s.peer_id == peer_id), peer_id[-6:])

    async def start(self, spans: list[Span]) -> None:
        """Start everything; returns when every server is online. Raises ConfigError if one fails."""
        bootstrap = self._begin("bootstrap", None)
        await self._wait_ready(bootstrap)
        servers = [self._begin(f"server {number}", span) for number, span in enumerate(spans, 1)]
        for server in servers:
            await self._wait_ready(server)

    def kill(self, service: Service) -> None:
        """End a server as a power cut would."""
        os.kill(service.pid, signal.SIGKILL)

    async def watch_forever(self) -> None:
        """Replace servers that are lost."""
        async with asyncio.TaskGroup() as group:
            async for event in self._events():
                self._note(event, group)

    def end(self) -> None:
        """Tell the zygote to end everything."""
        self._is_ending = True
        try:
            self._line.sendall(b'{"stop": true}\n')
        except OSError:
            return

    def _note(self, event: dict[str, Any], group: asyncio.TaskGroup) -> None:
        if "started" in event:
            self.services[event["started"]].pid = event["pid"]
            return
        service = self.services.get(event["exited"])
        if service is None or service.pid != event["pid"] or self._is_ending:
            return
        if service.span is None or service.peer_id is None:
            raise self._failure(service, "could not be started" if service.peer_id is None else "has ended")
        self._say(f"{service.title} is gone; a new server takes its blocks")
        group.create_task(self._replace(service))

    async def _replace(self, lost: Service) -> None:
        server = self._begin(lost.name, lost.span)
        await self._wait_ready(server)
        self._say(f"{server.title} is back with a new process, {server.pid}")

    def _begin(self, name: str, span: Span | None) -> Service:
        self._num_started += 1
        base = self._folder / str(self._num_started)
        service = Service(name, span, base.with_suffix(".json"), base.with_suffix(".log"))
        self.services[name] = service
        order: dict[str, Any] = {
            "start": name,
            "kind": "dht",
            "ready_file": str(service.ready_file),
            "log": str(service.log),
        }
        if span is not None:
            order |= {
                "kind": "server",
                "model": self._model,
                "blocks": [span.start, span.end],
                "initial_peers": list(self.initial_peers),
            }
        self._line.sendall(json.dumps(order).encode() + b"\n")
        return service

    async def _wait_ready(self, service: Service) -> None:
        try:
            async with asyncio.timeout(READY_S):
                while not service.ready_file.exists():  # noqa: ASYNC110 - the file is the only sign
                    await asyncio.sleep(TICK_S)
        except TimeoutError as error:
            raise self._failure(service, f"is not ready after {READY_S:.0f} s") from error
        ready = json.loads(service.ready_file.read_text(encoding="utf-8"))
        service.peer_id, service.addresses = PeerId(ready["peer_id"]), tuple(ready["addresses"])

    def _failure(self, service: Service, what: str) -> ConfigError:
        """Its log goes with the folder when the demo ends, so that the sentence has its last lines."""
        try:
            words = service.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            words = []
        tail = "".join(f"\n  {line}" for line in words[-NUM_LAST_WORDS:])
        return ConfigError(f"{service.name} {what}{'; its last words:' if tail else ''}{tail}")

    async def _events(self) -> AsyncIterator[dict[str, Any]]:
        """What the zygote says."""
        self._line.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._line.dup())
        try:
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
