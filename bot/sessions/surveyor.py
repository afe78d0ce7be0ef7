"""Looks at the swarm for people: who serves what, how fast, and through whom it is joined.

Our own model's servers are watched all the time, so a look at them asks nobody; those of other models are
asked for in the DHT. What was seen is good for a few seconds, whoever asks how often.
"""

import asyncio
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from bot.clock import Clock
from bot.survey import Reach, Survey, Surveys, Unknown
from swarm.addresses import reach_of
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.block_sizes import block_size
from swarm.checkpoint.fitting import BlockSize
from swarm.client import SwarmModel
from swarm.commands.status_report import Report
from swarm.errors import ConfigError, MurmurError, NoRouteError, SwarmTimeout
from swarm.routing import expected_token_s, find_route
from swarm.wire.blocks import PeerId
from swarm.wire.records import ServerRecord

FRESH_S = 3.0
LOOK_S = 15.0
REMEMBERED_S = 900.0
REMEMBERED_ANSWERS = 20
LEAST_TOKENS = 8
"""Of an answer whose speed says something."""
MOST_PEERS = 3
QUANTIZATIONS = ("none", "int8", "nf4")
_ADDRESS = re.compile(r"(/[A-Za-z0-9.:_-]+)+/p2p/[1-9A-HJ-NP-Za-km-z]{8,64}")
"""Servers announce what they like, and people will paste it into a shell."""
_REACHES: tuple[Reach, ...] = ("internet", "network", "machine")

T = TypeVar("T")


class Fresh(Generic[T]):
    """What a look came to, shared by all who ask within FRESH_S."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, T]], clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._lock = asyncio.Lock()
        self._seen: tuple[float, T] | None = None

    async def get(self) -> T:
        """What is to be seen now. Raises SwarmTimeout if nobody says it in time."""
        async with self._lock:
            if self._seen is None or self._clock.now_s() - self._seen[0] >= FRESH_S:
                self._seen = None
                self._seen = (self._clock.now_s(), await self._looked())
            return self._seen[1]

    async def _looked(self) -> T:
        try:
            async with asyncio.timeout(LOOK_S):
                return await self._look()
        except TimeoutError as error:
            raise SwarmTimeout(f"the swarm did not say within {LOOK_S:.0f} s who serves") from error


class Surveyor:
    """Knows the swarm of `model`, and asks for those of `others`, models by name or path."""

    def __init__(self, model: SwarmModel, clock: Clock, others: Sequence[str] = ()) -> None:
        self._model = model
        self._clock = clock
        self._others = others
        self._opened: dict[str, Checkpoint] = {}
        self._speeds: deque[tuple[float, float]] = deque(maxlen=REMEMBERED_ANSWERS)
        self._sizes: Mapping[str, BlockSize] | None = None
        self._own = Fresh(self._look, clock)
        self._all = Fresh(self._look_at_all, clock)

    async def survey(self) -> Survey:
        """How our own model's swarm is now. Raises SwarmTimeout."""
        seen, measured = await self._own.get(), self._measured()
        if not measured or not seen.report.is_complete:
            return seen
        return replace(seen, tokens_per_s=measured, is_measured=True)

    async def surveys(self) -> Surveys:
        """That, and the same of the other models. Raises SwarmTimeout."""
        return await self._all.get()

    async def block_sizes(self) -> Mapping[str, BlockSize]:
        """What a block takes in each quantization that the model can be held in. Raises ConfigError."""
        if self._sizes is None:
            self._sizes = await asyncio.to_thread(_sizes_of, self._model.checkpoint)
        return self._sizes

    def note_speed(self, num_tokens: int, tokens_per_s: float) -> None:
        """An answer has been written."""
        if num_tokens >= LEAST_TOKENS and tokens_per_s > 0:
            self._speeds.append((self._clock.now_s(), tokens_per_s))

    # --- our own model ---------------------------------------------------------------------------------

    async def _look(self) -> Survey:
        checkpoint, network = self._model.checkpoint, self._model.network
        report = _report(checkpoint, network.directory.servers, network.dht.num_peers)
        is_folder = Path(checkpoint.name).is_dir()
        peers = find_peers(network.dht.initial_peers, network.dht.knows, report)
        rtts_s, avoiding = network.connections.rtts_s, network.health.avoiding()
        expected = await asyncio.to_thread(_speed, report, rtts_s, avoiding)  # many servers take a moment
        return Survey(
            report,
            tokens_per_s=expected,
            model=str(Path(checkpoint.name).resolve()) if is_folder else checkpoint.name,
            is_folder=is_folder,
            peers=peers,
            reach=reach_of(peers[0]) if peers else "internet",
        )

    def _measured(self) -> float:
        since_s = self._clock.now_s() - REMEMBERED_S
        recent = [speed for at_s, speed in self._speeds if at_s >= since_s]
        return statistics.median(recent) if recent else 0.0

    # --- others ------------------------------------------------------------------------------------------

    async def _look_at_all(self) -> Surveys:
        return [await self.survey(), *[await self._look_at(name) for name in self._others]]

    async def _look_at(self, name: str) -> Survey | Unknown:
        try:
            if name not in self._opened:
                self._opened[name] = await asyncio.to_thread(_opened, name)
            checkpoint = self._opened[name]
            dht = self._model.network.dht
            report = _report(checkpoint, await dht.find_servers(checkpoint.fingerprint), dht.num_peers)
        except MurmurError as error:
            return Unknown(Path(name).name if Path(name).is_dir() else name, str(error))
        return Survey(report, tokens_per_s=await asyncio.to_thread(_speed, report))


def find_peers(
    initial_peers: Sequence[str], knows: Callable[[PeerId], bool], report: Report
) -> tuple[str, ...]:
    """Initial peers that answer; if none does, servers: whoever joins through a stranger trusts them."""
    answering = [each for each in initial_peers if knows(PeerId(each.rpartition("/p2p/")[2]))]
    offered = [address for server in report.usable if not server.is_relayed for address in server.addresses]
    return choose_peers(answering) or choose_peers(offered) or choose_peers(initial_peers)


def choose_peers(addresses: Sequence[str]) -> tuple[str, ...]:
    """A few of `addresses`, those that most people can dial; one for each peer, and nothing but addresses."""
    by_peer: dict[str, list[str]] = {}
    for address in filter(_ADDRESS.fullmatch, addresses):
        by_peer.setdefault(address.rpartition("/p2p/")[2], []).append(address)
    best = [min(each, key=_rank) for each in by_peer.values()]
    nearest = min(map(_rank, best), default=0)
    return tuple(address for address in best if _rank(address) == nearest)[:MOST_PEERS]


def _rank(address: str) -> int:
    return _REACHES.index(reach_of(address))


def _report(checkpoint: Checkpoint, records: Sequence[ServerRecord], num_peers: int) -> Report:
    return Report(
        model=checkpoint.title,
        fingerprint=checkpoint.fingerprint,
        num_blocks=checkpoint.num_blocks,
        servers=tuple(record for record in records if record.state != "offline"),
        now=time.time(),
        num_peers=num_peers,
    )


def _speed(
    report: Report,
    rtts_s: Mapping[PeerId, float] = MappingProxyType({}),
    avoiding: Mapping[PeerId, float] = MappingProxyType({}),
) -> float:
    """Tokens/s along the best route, at best; 0 if there is none."""
    try:
        route = find_route(report.servers, num_blocks=report.num_blocks, rtts_s=rtts_s, avoiding=avoiding)
    except NoRouteError:
        return 0.0
    return 1 / expected_token_s(route, report.servers, rtts_s)


def _opened(name: str) -> Checkpoint:
    """A model, with all that is asked of it read: a folder's weights are digested for that."""
    checkpoint = open_checkpoint(name)
    checkpoint.find_fingerprint()
    _ = checkpoint.num_blocks
    return checkpoint


def _sizes_of(checkpoint: Checkpoint) -> dict[str, BlockSize]:
    sizes = {"none": block_size(checkpoint, "auto")}
    for kind in QUANTIZATIONS[1:]:
        try:
            sizes[kind] = block_size(checkpoint, "auto", kind)
        except ConfigError:  # it is stored quantized already
            continue
    return sizes
