"""A block server that computes honestly and lies about it: what it would send goes through a trick first.

It announces a valid record in the real DHT, better than everybody else's, and obeys binds, until its trick
turns what leaves it into something else: other messages, other tensors, bytes that are no frame, or nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch

from swarm.health import Health
from swarm.inference import open_session
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.notices import Notice
from swarm.streams import FrameStream
from swarm.transport import Transport
from swarm.wire.frames import FrameDecoder, encode_frame
from swarm.wire.messages import Message
from tests.end_to_end.exact import check_answer, prompt
from tests.end_to_end.swarm import BlockServer, Client, Offer, Swarm

Tensors = Sequence[torch.Tensor]
Trick = Callable[[Message, Tensors], "Iterator[bytes] | None"]
"""What to send in the place of a message: some bytes, or None for what it is."""

END = b""
"""As bytes of a trick: end the stream."""
SPEED = 1e6


def frame(message: Message, *tensors: torch.Tensor) -> bytes:
    """An honest frame."""
    return b"".join(encode_frame(message, tensors))


def raw_frame(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A frame around any header."""
    raw = msgspec.msgpack.encode(header)
    return (5 + len(raw) + len(body)).to_bytes(4, "big") + b"\x01" + len(raw).to_bytes(4, "big") + raw + body


class _TrickyStream(FrameStream):
    """A stream of a hostile server."""

    def __init__(self, honest: FrameStream, server: "HostileServer") -> None:
        super().__init__(honest.remote_id, honest._reader, honest._writer, honest._rules, honest._budget)
        self._server = server

    def _send(self, message: Message, tensors: Tensors) -> None:
        bytes_instead = self._server.trick(message, tensors)
        if bytes_instead is None:
            super()._send(message, tensors)
            return
        self._server.num_lies += 1
        for raw in bytes_instead:
            if raw == END:
                self.close()
                return
            self._writer.write(raw)


class _TrickyTransport(Transport):
    """A transport all of whose streams are tricky, in and out."""

    def __init__(self, honest: Transport, server: "HostileServer") -> None:
        self.__dict__ = honest.__dict__
        self._server = server

    async def serve(
        self,
        protocol: str,
        handler: Callable[[FrameStream], Awaitable[None]],
        *,
        limit: int,
        decoder: FrameDecoder,
    ) -> None:
        async def handle(stream: FrameStream) -> None:
            tricky = _TrickyStream(stream, self._server)
            self._server.accepted.append(tricky)
            await handler(tricky)

        await super().serve(protocol, handle, limit=limit, decoder=decoder)

    async def open_stream(self, *place: Any, **rules: Any) -> FrameStream:
        return _TrickyStream(await super().open_stream(*place, **rules), self._server)


class HostileServer(BlockServer):
    """See the module; `trick` may be exchanged at any time, `num_lies` counts what it has changed."""

    num_lies = 0
    trick: Trick = staticmethod(lambda message, tensors: None)

    def __init__(self, *place: Any) -> None:
        super().__init__(*place)
        self.accepted: list[FrameStream] = []
        """Every stream that others have opened to it."""

    def tell_clients(self, message: Message) -> None:
        """Say something on the control streams of all who have sessions here, in their sessions' names."""
        for session in self.host.table.sessions():
            named = msgspec.structs.replace(message, session=session.key.session, epoch=session.epoch)
            self.host._tell(session.key, named)

    def answer_predecessors(self, raw: bytes) -> None:
        """Write on the streams by which other servers send us steps, which nobody expects; END ends them."""
        clients = {session.key.client for session in self.host.table.sessions()}
        for stream in self.accepted:
            if stream.remote_id in clients or stream.is_closing:
                continue
            if raw == END:
                stream.close()
            else:
                stream._writer.write(raw)

    @property
    def transport(self) -> Transport:  # type: ignore[override]
        return self._tricky

    @transport.setter
    def transport(self, honest: Transport) -> None:
        self._tricky = _TrickyTransport(honest, self)


async def add_hostile(swarm: Swarm, start: int, end: int) -> HostileServer:
    """Start a server that everybody would choose, with blocks `[start, end)`."""
    server = HostileServer(swarm.model, Offer(start, end, blocks_per_s=SPEED), swarm._initial_peers)
    swarm._stack.push_async_callback(server.leave)
    await server.start()
    swarm.servers.append(server)
    return server


def tricks_on(
    *kinds: type[Message], change: Callable[[Any, Tensors], Iterator[bytes] | None], after: int = 3
) -> Trick:
    """A trick that changes messages of these kinds, but for the first `after`."""
    num_seen = 0

    def trick(message: Message, tensors: Tensors) -> Iterator[bytes] | None:
        nonlocal num_seen
        if not isinstance(message, kinds):
            return None
        num_seen += 1
        return change(message, tensors) if num_seen > after else None

    return trick


def changed(**fields: Any) -> Callable[[Any, Tensors], Iterator[bytes]]:
    """Send the message with other fields, whatever ranges they should have."""

    def change(message: Message, tensors: Tensors) -> Iterator[bytes]:
        (raw, *bodies) = encode_frame(message, tensors)
        header: dict[str, Any] = msgspec.msgpack.decode(bytes(raw)[9:])
        yield raw_frame(header | fields, b"".join(map(bytes, bodies)))

    return change


def said(*raw: bytes) -> Callable[[Any, Tensors], Iterator[bytes]]:
    """Send these bytes instead."""
    return lambda message, tensors: iter(raw)


def with_rows(
    make: Callable[[torch.Tensor], Sequence[torch.Tensor]],
) -> Callable[[Any, Tensors], Iterator[bytes]]:
    """Send the message with other tensors."""
    return lambda message, tensors: iter(
        [frame(msgspec.structs.replace(message, tensors=()), *make(tensors[0]))]
    )


@dataclass
class Outcome:
    """How two sessions went, one after the other: where they ended, and who was avoided in between."""

    notices: list[Notice] = field(default_factory=list)
    avoided: set[str] = field(default_factory=set)
    first: list[BlockServer] = field(default_factory=list)
    second: list[BlockServer] = field(default_factory=list)


async def answered_twice(
    swarm: Swarm,
    client: Client,
    among: Sequence[BlockServer],
    *,
    stall_s: float = 30.0,
    length: int = 12,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Two sessions `among` these servers, each of them exact; a pause after a failure ends by `clock`."""
    outcome = Outcome()
    async with client._open_network(among) as network:
        network.health = Health(clock)
        outcome.first = await answered(swarm, network, outcome, 7, stall_s, length)
        outcome.avoided = set(network.health.avoiding())
        outcome.second = await answered(swarm, network, outcome, 8, stall_s, 3)
    return outcome


async def answered(
    swarm: Swarm, network: Network, outcome: Outcome, number: int, stall_s: float = 30.0, length: int = 12
) -> list[BlockServer]:
    """A session that must be exact; where it ended."""
    async with (
        asyncio.timeout(40),
        open_session(network, Inputs(swarm.model.ends.embed)) as session,
    ):
        patience = session.driver.patience
        patience.stall_s = patience.in_hand_limit_s = stall_s
        session.on_notice = outcome.notices.append
        await check_answer(swarm.model, session, prompt(number), length)
        return swarm.path(session)
