"""Frames on their way to one peer: sent at once while it keeps up, queued and bounded while it does not.

Belongs to one session and one epoch at a time. Both halves use it: a hop towards its successor, the client
towards the first hop.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import torch

from swarm.allowance import Allowance, unlimited
from swarm.errors import PeerUnreachable
from swarm.streams import FrameStream
from swarm.wire.messages import Message

MAX_FRAMES = 256
MAX_BYTES = 64 << 20
MAX_UNMADE_FRAMES = 1 << 14

Tensors = Sequence[torch.Tensor] | Callable[[], Sequence[torch.Tensor]]
"""What goes behind a message, or how to make it when its turn comes (a replay need not lie in memory)."""


class Outgoing:
    """A queue in front of a stream that may not be open yet."""

    def __init__(self, on_broken: Callable[[int], None], allowance: Allowance | None = None) -> None:
        """`on_broken(epoch)` is called when the stream of that epoch turns out to be broken.

        `allowance` is that of the peer on whose behalf frames are queued.
        """
        self._on_broken = on_broken
        self._queue: deque[tuple[Message, Tensors]] = deque()
        self._queued_bytes = 0
        self._allowance = allowance or unlimited()
        self._stream: FrameStream | None = None
        self._changed = asyncio.Event()
        self.epoch = -1

    @property
    def is_full(self) -> bool:
        """True if the peer is so far behind that nothing more may be queued."""
        is_behind = len(self._queue) >= MAX_FRAMES or self._queued_bytes >= MAX_BYTES
        return is_behind or self._allowance.is_exhausted

    @property
    def has_unmade(self) -> bool:
        """Whether frames wait whose tensors are made only when their turn comes."""
        return any(callable(tensors) for _, tensors in self._queue)

    async def wait_for_room(self) -> None:
        """Until the queue is not full, or is closed."""
        while self.is_full and self.epoch >= 0:
            await self._allowance.wait_for_change()

    def begin(self, epoch: int) -> None:
        """Forget the stream and the frames of the epoch before; frames wait until `attach`."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._queue.clear()
        self._count(0)
        self.epoch = epoch

    def attach(self, stream: FrameStream, epoch: int) -> bool:
        """The stream of `epoch` is open; False, and nothing done, if the epoch is over."""
        if epoch != self.epoch:
            return False
        self._stream = stream
        self._changed.set()
        return True

    def send(self, message: Message, tensors: Tensors = ()) -> bool:
        """Send or queue a frame; False if the queue is full. One that is made later takes no room before."""
        if len(self._queue) >= MAX_UNMADE_FRAMES if callable(tensors) else self.is_full:
            return False
        if self._queue or self._stream is None or not self._sent_now(self._stream, message, tensors):
            self._queue.append((message, tensors))
            self._count(self._queued_bytes + _num_bytes(tensors))
            self._changed.set()
        return True

    async def pump_forever(self) -> None:
        """Send what had to wait, as fast as the peer takes it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._queue and self._stream is not None:
                await self._send_first(self._stream)

    def close(self) -> None:
        """End the stream and forget what waits."""
        self.begin(-1)

    def _sent_now(self, stream: FrameStream, message: Message, tensors: Tensors) -> bool:
        return not callable(tensors) and stream.write_nowait(message, tensors)

    async def _send_first(self, stream: FrameStream) -> None:
        message, tensors = self._queue[0]
        epoch = self.epoch
        try:
            await stream.write(message, tensors() if callable(tensors) else tensors)
        except PeerUnreachable:
            if epoch == self.epoch:
                self.begin(epoch)
                self._on_broken(epoch)
            return
        if epoch == self.epoch and self._queue and self._queue[0][0] is message:
            self._queue.popleft()
            self._count(self._queued_bytes - _num_bytes(tensors))

    def _count(self, queued_bytes: int) -> None:
        self._queued_bytes = queued_bytes
        self._allowance.note(queued_bytes)


def _num_bytes(tensors: Tensors) -> int:
    return 0 if callable(tensors) else sum(tensor.numel() * tensor.element_size() for tensor in tensors)
