"""A peer that breaks the rules: raw bytes on real streams, and binds and steps made by hand."""

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import torch

from swarm.errors import PeerUnreachable
from swarm.streams import ByteBudget, FrameStream, StreamRules
from swarm.transport import Transport, native_id, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN, FROM_SERVER, MAX_CHAIN_FRAME_BYTES, MAX_CONTROL_FRAME_BYTES
from swarm.wire.messages import (
    Bind,
    BindAck,
    Heartbeat,
    Hello,
    Message,
    NextHop,
    Ping,
    SessionError,
    Step,
)
from swarm.wire.protocols import CHAIN, CONTROL
from swarm.wire.tags import TagChain

ANSWER_S = 8.0
HIDDEN = 64
NUM_BLOCKS = 6


class Control:
    """A control stream whose heartbeats are sorted out."""

    def __init__(self, stream: FrameStream) -> None:
        self.stream = stream

    async def ask(self, message: Message) -> Message:
        """Say something and wait for what it leads to."""
        await self.stream.write(message)
        return await self.next()

    async def next(self, within_s: float = ANSWER_S) -> Message:
        """The next message that is no heartbeat and no record."""
        async with asyncio.timeout(within_s):
            while True:
                message = (await self.stream.read()).message
                if type(message).__name__ not in ("Heartbeat", "RecordPush"):
                    return message

    async def vitals(self) -> Heartbeat:
        """How the server is, after it has read all that we said."""
        nonce = secrets.randbelow(2**40) + 1
        await self.stream.write(Ping(nonce=nonce))
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = (await self.stream.read()).message
                if isinstance(message, Heartbeat) and message.nonce == nonce:
                    return message


class Attacker:
    """A stranger with an identity of its own, aimed at one server. See `open_attacker`."""

    def __init__(self, transport: Transport, target: PeerId, addresses: Sequence[str], model: str) -> None:
        self.transport = transport
        self.target = target
        self.fingerprint = model
        self._addresses = tuple(addresses)

    async def control(self) -> Control:
        """A control stream."""
        stream = await self.transport.open_stream(
            self.target, CONTROL, self._addresses, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_SERVER
        )
        return Control(stream)

    async def chain(self, hello: Message | None) -> FrameStream:
        """A chain stream on which `hello` was said, or nothing yet."""
        stream = await self.transport.open_stream(
            self.target, CHAIN, self._addresses, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN
        )
        if hello is not None:
            await stream.write(hello)
        return stream

    async def code_after(self, raw: bytes, protocol: str) -> str:
        """Write bytes on a stream of their own; returns the code of the error that follows, or ""."""
        return await refusal_on(await self._raw_stream(raw, protocol))

    async def held_for(self, raw: bytes, protocol: str, at_most_s: float) -> float:
        """Write bytes and hold the stream open; returns the seconds after which the server has ended it.

        Infinite if it has not within `at_most_s`.
        """
        stream = await self._raw_stream(raw, protocol)
        began = time.monotonic()
        try:
            await refusal_on(stream, at_most_s)
        except TimeoutError:
            return math.inf
        return time.monotonic() - began

    async def _raw_stream(self, raw: bytes, protocol: str) -> FrameStream:
        _, reader, writer = await self.transport.p2p.call_binary_stream_handler(
            native_id(self.target), protocol
        )
        writer.write(raw)
        rules = StreamRules(MAX_CHAIN_FRAME_BYTES, FROM_SERVER if protocol == CONTROL else FROM_CHAIN)
        return FrameStream(self.target, reader, writer, rules, ByteBudget(1 << 20))

    def bind(self, session: bytes, **changes: Any) -> Bind:
        """A bind of the whole model on this one server, with `changes`."""
        fields: dict[str, Any] = {
            "epoch": 1,
            "stage": 0,
            "num_stages": 1,
            "start": 0,
            "end": NUM_BLOCKS,
            "fingerprint": self.fingerprint,
            "previous": self.transport.peer_id,
            "next": None,
            "commit": 0,
            "lease_ms": 0,
        }
        return Bind(session=session, **(fields | changes))

    def hello(self, session: bytes, **changes: Any) -> Hello:
        """The greeting of a chain stream for that bind."""
        fields: dict[str, Any] = {"client": self.transport.peer_id, "epoch": 1, "stage": 0}
        return Hello(session=session, **(fields | changes))

    async def opened(self, control: Control, **changes: Any) -> tuple[bytes, FrameStream]:
        """A session of our own, and a stream into it."""
        session = secrets.token_bytes(16)
        ack = await control.ask(self.bind(session, **changes))
        assert isinstance(ack, BindAck), ack
        return session, await self.chain(self.hello(session))


def step(num_tokens: int, *, seq: int = 0, position: int = 0, **changes: Any) -> Step:
    """A step that a server believes: its tags hang together."""
    tags = TagChain(bytes(16))
    tags.append(range(position + num_tokens))
    fields: dict[str, Any] = {
        "epoch": 1,
        "seq": seq,
        "attempt": 0,
        "position": position,
        "num_tokens": num_tokens,
        "base_tag": tags.tag(position),
        "tag": tags.tag(position + num_tokens),
        "commit": 0,
        "rows": 1,
    }
    return Step(**(fields | changes))


def hidden(num_tokens: int, size: int = HIDDEN) -> torch.Tensor:
    """Plausible hidden states."""
    return torch.ones(num_tokens, size) / 8


async def refusal_on(stream: FrameStream, within_s: float = ANSWER_S) -> str:
    """The code of the error that the server says on the stream before it ends it; "" if it only ends it.

    Raises TimeoutError if it does not end it within `within_s`.
    """
    code = ""
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = (await stream.read()).message
                if isinstance(message, SessionError):
                    code = message.code
    except PeerUnreachable:
        return code


@asynccontextmanager
async def open_attacker(
    target: PeerId | str, addresses: Sequence[str], fingerprint: str
) -> AsyncIterator[Attacker]:
    """A stranger beside the target."""
    async with open_transport(client_only=True) as transport:
        attacker = Attacker(transport, PeerId(target), addresses, fingerprint)
        await transport.connect(attacker.target, tuple(addresses))
        yield attacker


def next_hop(transport: Transport) -> NextHop:
    """A successor that a server may be told to send to."""
    return NextHop(transport.peer_id, transport.addresses)
