"""Frames on one stream: reads that a hostile peer cannot make grow, writes that a slow peer slows down.

Works on any asyncio reader and writer; transport.py makes them.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import torch

from swarm.errors import PeerUnreachable
from swarm.wire.blocks import PeerId
from swarm.wire.frames import PREFIX_BYTES, Frame, FrameDecoder, body_bytes, encode_frame
from swarm.wire.messages import Message

CHUNK_BYTES = 256 << 10
HALF_FRAME_S = 30.0
FIRST_FRAME_S = 30.0
CLOSE_S = 5.0
MAX_UNSENT_BYTES = 1 << 20
MAX_BYTES_PER_PEER = 128 << 20
MAX_STREAMS_PER_PEER = 256
MAX_STREAMS = 4096
FAIR_STREAMS = 8  # when all are taken, a peer with fewer than this may still open one: ids cost nothing


class EndOfStream(PeerUnreachable):
    """The other end closed the stream, or its process ended: on this network both look the same."""


class ByteBudget:
    """How many bytes of unfinished frames one peer may make us hold, over all of its streams."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait until `size` bytes fit, then count them during the block. One frame alone always fits."""
        while self._held and self._held + size > self._limit:
            self._freed.clear()
            await self._freed.wait()
        self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._freed.set()


class IncomingStreams:
    """How many streams each peer holds, and whether it may have one more."""

    def __init__(self) -> None:
        self.num_refused = 0
        self._number: Counter[PeerId] = Counter()
        self._budgets: dict[PeerId, ByteBudget] = {}

    def budget(self, peer_id: PeerId) -> ByteBudget:
        """The budget that all streams of the peer share."""
        return self._budgets.setdefault(peer_id, ByteBudget(MAX_BYTES_PER_PEER))

    @contextmanager
    def counted(self, peer_id: PeerId) -> Iterator[bool]:
        """Count a stream of the peer during the block; tells whether it is within the limits."""
        self._number[peer_id] += 1
        limit = MAX_STREAMS_PER_PEER if self._number.total() <= MAX_STREAMS else FAIR_STREAMS
        is_admitted = self._number[peer_id] <= limit
        self.num_refused += not is_admitted
        try:
            yield is_admitted
        finally:
            self._number[peer_id] -= 1
            if not self._number[peer_id]:
                del self._number[peer_id]
                self._budgets.pop(peer_id, None)


@dataclass(frozen=True)
class StreamRules:
    """What the other end may send: frames of up to `limit` bytes, of one family of messages.

    The first frame must come within `first_frame_s`, the rest of a frame within `half_frame_s` of its length.
    """

    limit: int
    decoder: FrameDecoder
    first_frame_s: float | None = None
    half_frame_s: float = HALF_FRAME_S


class FrameStream:
    """One stream to or from `remote_id`, the peer's authenticated id. One task reads; any may write."""

    def __init__(
        self,
        remote_id: PeerId,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        rules: StreamRules,
        budget: ByteBudget,
    ) -> None:
        self.remote_id = remote_id
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0
        self._reader = reader
        self._writer = writer
        self._rules = rules
        self._budget = budget

    async def read(self) -> Frame:
        """Wait for the next frame, for as long as the peer says nothing.

        Raises EndOfStream if the stream ended, BadFrame if the peer broke the wire's rules, and
        PeerUnreachable if the first frame, or the rest of one, did not come in time.
        """
        try:
            async with asyncio.timeout(None if self.frames_in else self._rules.first_frame_s):
                prefix = await self._reader.readexactly(PREFIX_BYTES)
            size = body_bytes(prefix, self._rules.limit)
            async with self._budget.hold(size):
                body = await self._read_body(size)
        except TimeoutError as error:
            raise PeerUnreachable(
                f"{self.remote_id} fell silent where it had to speak", self.remote_id
            ) from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EndOfStream(f"{self.remote_id} ended the stream", self.remote_id) from error
        self.frames_in += 1
        self.bytes_in += PREFIX_BYTES + size
        return self._rules.decoder.decode(body)

    async def _read_body(self, size: int) -> bytearray:
        """Grow with what really comes: a peer that only promises 64 MiB must not make us touch them."""
        body = bytearray()
        async with asyncio.timeout(self._rules.half_frame_s):
            while len(body) < size:
                chunk = await self._reader.read(min(size - len(body), CHUNK_BYTES))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", size)
                body += chunk
        return body

    async def write(self, message: Message, tensors: Sequence[torch.Tensor] = ()) -> None:
        """Send a frame; wait while the peer is slow. The tensors are free for use when this returns.

        Raises EndOfStream if the stream has ended.
        """
        try:
            self._send(message, tensors)
            await self._writer.drain()
        except OSError as error:
            raise EndOfStream(f"{self.remote_id} ended the stream", self.remote_id) from error

    def write_nowait(self, message: Message, tensors: Sequence[torch.Tensor] = ()) -> bool:
        """Send a frame unless the peer is slow or the stream has ended; tell whether it was sent."""
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            return False
        self._send(message, tensors)
        return True

    def _send(self, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        # One copy: the loop may keep what it cannot send yet, and the caller overwrites its tensors.
        raw = b"".join(encode_frame(message, tensors))
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the stream is closed")
        self._writer.write(raw)
        self.frames_out += 1
        self.bytes_out += len(raw)

    @property
    def is_closing(self) -> bool:
        """Whether the stream was closed by us, or found broken."""
        return self._writer.transport.is_closing()

    def close(self) -> None:
        """End the stream. What was written still goes out, for CLOSE_S at most. Idempotent."""
        transport = self._writer.transport
        if not transport.is_closing():
            self._writer.close()
            asyncio.get_running_loop().call_later(CLOSE_S, transport.abort)
