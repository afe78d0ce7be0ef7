"""Says in the DHT what this server hosts and how it is, and says goodbye."""

import asyncio
import logging
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, cast

import torch

from server.host import Host
from server.serving import Serving
from server.throughput import Throughput
from swarm.background import running
from swarm.dht import Dht, announce_forever
from swarm.errors import SwarmError
from swarm.transport import Transport
from swarm.wire.blocks import Span
from swarm.wire.records import ModelRecord, ServerRecord, fit_record, seal_record

logger = logging.getLogger(__name__)

State = Literal["joining", "online", "draining", "offline"]
RECORD_LIFE_S = 30.0
MAX_MODEL_NAME = 128


@dataclass(frozen=True, slots=True)
class Announced:
    """What does not change while the server runs."""

    fingerprint: str
    span: Span
    dtype: torch.dtype
    quantization: Literal["none", "int8", "nf4"] = "none"
    public_name: str = ""
    model_name: str = ""
    num_blocks: int = 1


class Announcer:
    """Keeps the server's record in the DHT true."""

    def __init__(self, transport: Transport, dht: Dht, announced: Announced) -> None:
        self.state: State = "joining"
        self.throughput = Throughput(0.0, 0.0)
        self._transport = transport
        self._dht = dht
        self._announced = announced
        self._changed = asyncio.Event()
        self._sequence = int(time.time() * 1000)
        self._host: Host | None = None
        self._serving: Serving | None = None

    @property
    def span(self) -> Span:
        """The blocks that are announced."""
        return self._announced.span

    def record(self) -> ServerRecord:
        """What we would say now."""
        now = time.time()
        self._sequence += 1
        span = self._announced.span
        return ServerRecord(
            peer=self._transport.peer_id,
            sequence=self._sequence,
            issued_at=now,
            expires_at=now + RECORD_LIFE_S,
            fingerprint=self._announced.fingerprint,
            start=span.start,
            end=span.end,
            state=self.state,
            throughput=self.throughput.tokens_per_s,
            inference_rps=self.throughput.inference_rps,
            free_tokens=self._host.rooms.pool.free_tokens(len(span)) if self._host else 0,
            queue_depth=self._host.executor.queue_depth if self._host else 0,
            dtype=cast("Literal['float32', 'bfloat16', 'float16']", str(self._announced.dtype)[6:]),
            quantization=self._announced.quantization,
            version=_software_version(),
            public_name=self._announced.public_name,
            addresses=self._transport.addresses[:8],
            is_relayed=bool(self._transport.addresses)
            and all("/p2p-circuit" in address for address in self._transport.addresses),
        )

    def model_record(self) -> ModelRecord:
        """Our line of the index of models: for people who look for another one than we host."""
        now = time.time()
        self._sequence += 1
        printable = "".join(letter for letter in self._announced.model_name if letter.isprintable())
        return ModelRecord(
            peer=self._transport.peer_id,
            sequence=self._sequence,
            issued_at=now,
            expires_at=now + RECORD_LIFE_S,
            name=printable[:MAX_MODEL_NAME] or "a model without a name",
            fingerprint=self._announced.fingerprint,
            num_blocks=self._announced.num_blocks,
        )

    def set_state(self, state: State) -> None:
        """Announce a change at once."""
        self.state = state
        self._changed.set()

    def watch(self, host: Host, serving: Serving) -> None:
        """From now on, say how busy `host` is, and tell the clients of `serving` without the detour."""
        self._host, self._serving = host, serving

    async def announce_forever(self) -> None:
        """Renew the record and the line in the index of models; announce changes at once."""
        async with running(announce_forever(self._dht, self._sealed_model, asyncio.Event())):
            await announce_forever(self._dht, self._sealed, self._changed)

    async def announce_now(self) -> None:
        """Announce once and wait for it; if it fails, `announce_forever` makes up for it."""
        try:
            await self._dht.announce(await self._sealed())
        except SwarmError as error:
            logger.warning("%s", error)

    async def say_goodbye(self) -> None:
        """Tell everybody that we are gone."""
        self.state = "offline"
        await self.announce_now()

    async def _sealed_model(self) -> bytes:
        return seal_record(self.model_record(), self._transport.identity.sign)

    async def _sealed(self) -> bytes:
        """Our record as it is now. Behind NAT the relays' addresses come later, and may change."""
        await self._transport.refresh_addresses()
        raw = fit_record(self.record(), self._transport.identity.sign)
        if self._serving is not None:
            self._serving.push_record(raw)
        return raw


def _software_version() -> str:
    try:
        return version("murmur")
    except PackageNotFoundError:
        return "development"
