"""Frames on one stream: reads that a hostile peer cannot make grow, writes that a slow peer slows down.

Works on any asyncio reader and writer; transport.py makes them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
TURN_S = 0.001
# What our thread spends on a stream before its first frame, and on a frame beside what it makes us do: too
# little to be measured each time. A stream that comes to nothing is charged with what it costs the others:
# for each of its events the computation gives the interpreter away and has to get it back.
STREAM_S = 170e-6
FRAME_S = 80e-6
VAIN_STREAM_S = 1e-3
LOOP_SHARE = 0.05  # of our thread: about 500 orders a second, or 130 binds
LOOP_AT_ONCE_S = 0.2


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


class LoopBudget:
    """How much of the event loop's thread one peer may take, over all of its streams, with what is no work.

    Decoding frames and obeying orders is charged with the processor's time that it took; steps that are
    computed are not, for those wait in a line of their own. A peer may owe LOOP_AT_ONCE_S; then its streams
    are read no faster than LOOP_SHARE pays for, and it slows down nobody but itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owed_s = 0.0
        self._paid_at_s = clock()
        self._turn_s = 0.0
        self._debtors = asyncio.Lock()
        self._forgiven = asyncio.Event()

    def owed_s(self) -> float:
        """Seconds that were taken and are not paid for yet."""
        now_s = self._clock()
        self._owed_s = max(0.0, self._owed_s - LOOP_SHARE * (now_s - self._paid_at_s))
        self._paid_at_s = now_s
        return self._owed_s

    def charge(self, taken_s: float) -> None:
        """Note what was taken."""
        self._owed_s += taken_s
        self._turn_s += taken_s

    def forgive(self, taken_s: float) -> None:
        """What was charged has turned out to be work: others' too, if the peer carries it for them."""
        self._owed_s = max(0.0, self._owed_s - taken_s)
        self._forgiven.set()

    def welcome(self, *, is_own: bool) -> None:
        """A stream belongs to a session: the peer's own, or one of somebody for whom it carries steps."""
        self.forgive(VAIN_STREAM_S - STREAM_S if is_own else VAIN_STREAM_S)

    @contextmanager
    def charged(self, besides_s: float = 0.0) -> Iterator[None]:
        """Charge the peer with what the block takes, which must not wait for anything, and `besides_s`."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            self.charge(time.thread_time() - began_s + besides_s)

    async def next_turn(self) -> None:
        """Wait until the peer may have more; after TURN_S of work others come first in any case."""
        if self.owed_s() > LOOP_AT_ONCE_S:
            async with self._debtors:  # one wakes at a time: a hundred that look again are work as well
                while (too_much_s := self.owed_s() - LOOP_AT_ONCE_S) > 0:
                    await self._wait_for_payment(too_much_s / LOOP_SHARE)
        if self._turn_s > TURN_S:
            self._turn_s = 0.0
            await asyncio.sleep(0)

    async def _wait_for_payment(self, seconds: float) -> None:
        self._turn_s = 0.0
        self._forgiven.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._forgiven.wait()
        except TimeoutError:
            return


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
        loop_budget: LoopBudget | None = None,
    ) -> None:
        self.remote_id = remote_id
        self.loop_budget = loop_budget or LoopBudget()
        self.decoding_s = 0.0
        """What decoding the last frame took, and was charged to the budget."""
        self.frames_in = self.frames_out = self.bytes_in = self.bytes_out = 0
        self._reader = reader
        self._writer = writer
        self._rules = rules
        self._budget = budget

    async def read(self) -> Frame:
        """Wait for the next frame, for as long as the peer says nothing, or has said too much lately.

        Raises EndOfStream if the stream ended, BadFrame if the peer broke the wire's rules, and
        PeerUnreachable if the first frame, or the rest of one, did not come in time.
        """
        await self.loop_budget.next_turn()
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
        began_s = time.thread_time()
        try:
            return self._rules.decoder.decode(body)
        finally:
            self.decoding_s = time.thread_time() - began_s
            self.loop_budget.charge(self.decoding_s)

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
