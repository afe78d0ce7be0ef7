"""A swarm of real processes on this machine, and a client that can be told which servers to use.

Each server is `python -m server` with one compute thread and its own p2pd; what one announces may be the
address of a slow link (links.py).
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from bench.links import free_port, maddr_of, open_link
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.dht import Dht, open_dht
from swarm.errors import ConfigError
from swarm.inference import InferenceSession, open_session
from swarm.inputs import Inputs
from swarm.model_ends import ModelEnds, load_ends
from swarm.network import open_network
from swarm.say import say
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.records import ServerRecord

START_S = 120.0
KV_TOKENS = 200_000


@dataclass(eq=False)
class Service:
    """One process of the swarm, once it is ready."""

    process: "subprocess.Popen[bytes]"
    peer_id: PeerId
    addresses: tuple[str, ...]

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()


class ChosenServers:
    """A DHT in which some servers are found and no others."""

    def __init__(self, dht: Dht, peers: Sequence[PeerId]) -> None:
        self._dht = dht
        self._peers = frozenset(peers)

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        """Records of the chosen servers."""
        records = await self._dht.find_servers(fingerprint)
        return tuple(record for record in records if record.peer_id in self._peers)


@dataclass(eq=False)
class Swarm:
    """A bootstrap node, servers, and a client's place among them. See `open_swarm`."""

    model: Path
    checkpoint: Checkpoint
    ends: ModelEnds
    transport: Transport
    dht: Dht
    folder: Path
    initial_peers: tuple[str, ...]
    stack: AsyncExitStack

    async def start(self, *spans: tuple[int, int], delay_s: float = 0.0) -> list[Service]:
        """Start a server for each span, all at once, behind links with `delay_s` in each direction."""
        addresses = [await self._addresses(delay_s) for _ in spans]
        async with asyncio.TaskGroup() as group:
            starts = [
                group.create_task(_started(self.stack, self.folder, self._command(span, where)))
                for span, where in zip(spans, addresses, strict=True)
            ]
        return [start.result() for start in starts]

    def _command(self, span: tuple[int, int], addresses: Sequence[str]) -> list[str]:
        options = ["--threads", "1", "--kv-tokens", str(KV_TOKENS), "--blocks", f"{span[0]}:{span[1]}"]
        return ["server", str(self.model), "--initial-peers", *self.initial_peers, *options, *addresses]

    async def _addresses(self, delay_s: float) -> list[str]:
        port = free_port()
        if not delay_s:
            return ["--host-maddrs", maddr_of(port)]
        link = await self.stack.enter_async_context(open_link(port, delay_s=delay_s))
        return ["--host-maddrs", maddr_of(port), "--announce-maddrs", link.maddr]

    @asynccontextmanager
    async def session(self, *among: Service, is_relayed: bool = False) -> AsyncIterator[InferenceSession]:
        """A session over these servers alone; if `is_relayed`, the client carries every link itself."""
        chosen = cast(Dht, ChosenServers(self.dht, [service.peer_id for service in among]))
        inputs = Inputs(self.ends.embed)
        checkpoint = self.checkpoint
        async with (
            open_network(self.transport, chosen, checkpoint.fingerprint, checkpoint.num_blocks) as network,
            open_session(network, inputs, is_relayed=is_relayed) as session,
        ):
            yield session

    async def decode(self, session: InferenceSession, num_tokens: int, last: int = 3) -> float:
        """Decode greedily, one token after the other; returns seconds."""
        started = time.perf_counter()
        for _ in range(num_tokens):
            hidden = await session.feed([last])
            last = int(self.ends.logits(hidden)[-1].argmax())
        return time.perf_counter() - started


@asynccontextmanager
async def open_swarm(model: Path) -> AsyncIterator[Swarm]:
    """A bootstrap node and a client for `model`; servers are added with `start`. All ends with the block."""
    torch.set_num_threads(1)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="murmur-bench-")))
        bootstrap = await _started(stack, folder, ["swarm", "dht", "--host-maddrs", "/ip4/127.0.0.1/tcp/0"])
        transport = await stack.enter_async_context(
            open_transport(initial_peers=bootstrap.addresses, client_only=True)
        )
        dht = await stack.enter_async_context(open_dht(transport, bootstrap.addresses))
        checkpoint = open_checkpoint(str(model))
        ends = load_ends(checkpoint)
        yield Swarm(model, checkpoint, ends, transport, dht, folder, bootstrap.addresses, stack)


async def _started(stack: AsyncExitStack, folder: Path, command: Sequence[str]) -> Service:
    """Start `python -m COMMAND` and wait until it is ready. Raises ConfigError if it does not come up."""
    ready = Path(tempfile.mkdtemp(dir=folder)) / "ready.json"
    log = ready.with_name("log")
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting takes a millisecond
            [sys.executable, "-m", *command, "--ready-file", str(ready)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    stack.callback(_end, process)
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ConfigError(
                f"{' '.join(command[:2])} did not start: {log.read_text(errors='replace')[-400:]}"
            )
        await asyncio.sleep(0.05)
    told = json.loads(ready.read_text())
    say(f"[{command[0]} {process.pid} is ready]")
    return Service(process, PeerId(told["peer_id"]), tuple(told["addresses"]))


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()
