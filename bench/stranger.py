"""A peer beside one server, which speaks to it by hand: streams, binds, greetings. See hostile_floods.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from swarm.background import running_group
from swarm.dht import Dht
from swarm.errors import PeerUnreachable
from swarm.streams import FrameStream
from swarm.transport import Transport, native_id
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN, FROM_SERVER, MAX_CHAIN_FRAME_BYTES, MAX_CONTROL_FRAME_BYTES
from swarm.wire.messages import Bind, Hello
from swarm.wire.protocols import CHAIN, CONTROL

HIDDEN = 256
NUM_BLOCKS = 8


class Stranger:
    """`num_sent` counts messages, or streams where none follows."""

    def __init__(self, transport: Transport, dht: Dht, target: PeerId, fingerprint: str) -> None:
        self.transport = transport
        self.dht = dht
        self.target = target
        self.fingerprint = fingerprint
        self.num_sent = 0

    async def sent(self) -> None:
        """One more; others of our tasks come to their turn."""
        self.num_sent += 1
        await asyncio.sleep(0)

    async def raw(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stream without a reader of frames. Raises PeerUnreachable."""
        try:
            _, reader, writer = await self.transport.p2p.call_binary_stream_handler(
                native_id(self.target), protocol
            )
        except Exception as error:  # hivemind promises no kinds
            raise PeerUnreachable(f"no {protocol} stream to {self.target}", self.target) from error
        return reader, writer

    @asynccontextmanager
    async def control(self) -> AsyncIterator[FrameStream]:
        """A control stream whose messages nobody needs."""
        stream = await self.transport.open_stream(
            self.target, CONTROL, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_SERVER
        )
        try:
            async with running_group() as group:
                group.create_task(thrown_away(stream._reader))
                yield stream
        finally:
            stream.close()

    @asynccontextmanager
    async def chain(self, session: bytes, **changes: Any) -> AsyncIterator[FrameStream]:
        """A chain stream into, or out of, a session of ours."""
        stream = await self.transport.open_stream(
            self.target, CHAIN, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN
        )
        try:
            fields: dict[str, Any] = {"client": self.transport.peer_id, "epoch": 1, "stage": 0}
            await stream.write(Hello(session=session, **(fields | changes)))
            yield stream
        finally:
            stream.close()

    def bind(self, session: bytes, **changes: Any) -> Bind:
        """A bind of the whole model on this one server."""
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


async def thrown_away(reader: asyncio.StreamReader) -> None:
    """Read to the end of the stream."""
    while await reader.read(65_536):
        pass
