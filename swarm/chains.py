"""A client's chain streams: into the first hop, out of the last, and around links that hops cannot make."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import torch

from swarm.background import running_group
from swarm.errors import PeerUnreachable
from swarm.network import Network
from swarm.outgoing import Outgoing, Tensors
from swarm.session import ClientSession
from swarm.session_effects import OpenChain
from swarm.streams import FrameStream
from swarm.wire.blocks import PeerId, Route, SessionId
from swarm.wire.frames import BadFrame, Frame
from swarm.wire.messages import Hello, Message, StateStep, Step, StepResult

logger = logging.getLogger(__name__)

OPEN_S = 5.0


class RelayCounters(Protocol):
    """Where relayed frames are counted."""

    relayed_frames: int


OnResult = Callable[[PeerId, StepResult, torch.Tensor], None]
OnBroken = Callable[[PeerId, int, str], None]


class _Epoch:
    """The streams of one epoch of one session."""

    def __init__(self, machine: ClientSession, opened: OpenChain) -> None:
        self.number = opened.epoch
        self.relays = opened.relays
        self.route: Route = machine.route
        self._client = machine.client
        self._session_id: SessionId = machine.session_id
        self._slots = [machine.slot(stage) for stage in range(len(machine.route))]

    def hello(self, stage: int, *, is_output: bool) -> Hello:
        """The first frame of a stream to `stage`."""
        return Hello(
            client=self._client,
            session=self._session_id,
            epoch=self.number,
            stage=stage,
            slot=self._slots[stage],
            direction="output" if is_output else "input",
        )


class Chains:
    """The streams of a session; the newest epoch's only."""

    def __init__(
        self, network: Network, on_result: OnResult, on_broken: OnBroken, counters: RelayCounters
    ) -> None:
        self._network = network
        self._on_result = on_result
        self._on_broken = on_broken
        self._counters = counters
        self._first = Outgoing(self._on_first_broken)
        self._epoch: _Epoch | None = None
        self._begun = asyncio.Event()

    def begin(self, machine: ClientSession, opened: OpenChain) -> None:
        """Forget the streams of the epoch before and open those of the new one."""
        self._epoch = _Epoch(machine, opened)
        self._first.begin(opened.epoch)
        self._begun.set()

    def send(self, message: Message, tensors: Tensors) -> None:
        """Send down the chain, as soon as its first stream is open."""
        if not self._first.send(message, tensors) and self._epoch is not None:
            self._on_broken(self._epoch.route[0].peer_id, self._epoch.number, "it takes no more steps")

    async def run_forever(self) -> None:
        """Serve one epoch after the other."""
        try:
            async with running_group() as group:
                group.create_task(self._first.pump_forever())
                task: asyncio.Task[None] | None = None
                while True:
                    await self._begun.wait()
                    self._begun.clear()
                    if task is not None:
                        task.cancel()
                    assert self._epoch is not None
                    task = group.create_task(self._serve(self._epoch))
        finally:
            self._first.close()

    async def _serve(self, epoch: _Epoch) -> None:
        """All streams of an epoch, each in a task of its own."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed_first(epoch))
            group.create_task(self._fetch_results(epoch))
            for stage in epoch.relays:
                group.create_task(self._relay(epoch, stage))

    async def _feed_first(self, epoch: _Epoch) -> None:
        peer_id = epoch.route[0].peer_id
        stream = await self._opened(epoch, 0, is_output=False)
        if stream is not None and self._first.attach(stream, epoch.number):
            await self._read_until_broken(epoch, peer_id, stream, self._ignore)

    async def _fetch_results(self, epoch: _Epoch) -> None:
        last = len(epoch.route) - 1
        peer_id = epoch.route[last].peer_id
        stream = await self._opened(epoch, last, is_output=True)

        async def take(frame: Frame) -> None:
            if isinstance(frame.message, StepResult) and len(frame.tensors) == 1:
                self._on_result(peer_id, frame.message, frame.tensors[0])
            else:
                raise BadFrame("the last hop sends results, and nothing else")

        if stream is not None:
            await self._read_until_broken(epoch, peer_id, stream, take)

    async def _relay(self, epoch: _Epoch, stage: int) -> None:
        """Carry frames over a link that the hop of `stage` cannot make itself."""
        source = await self._opened(epoch, stage, is_output=True)
        target = await self._opened(epoch, stage + 1, is_output=False)
        if source is None or target is None:
            return

        async def carry(frame: Frame) -> None:
            if not isinstance(frame.message, Step | StateStep):
                raise BadFrame("only steps go down the chain")
            self._counters.relayed_frames += 1
            await target.write(frame.message, frame.tensors)

        await self._read_until_broken(epoch, epoch.route[stage].peer_id, source, carry)
        target.close()

    async def _read_until_broken(
        self, epoch: _Epoch, peer_id: PeerId, stream: FrameStream, take: Callable[[Frame], object]
    ) -> None:
        reason = "its stream ended"
        try:
            while True:
                await take(await stream.read())  # type: ignore[misc]
        except PeerUnreachable as error:
            peer_id = error.peer_id
        except BadFrame as error:
            reason = f"it broke the rules: {error}"
        finally:
            stream.close()
        self._on_broken(peer_id, epoch.number, reason)

    async def _ignore(self, frame: Frame) -> None:
        """The first hop refused our stream and says why on it; the stream's end is what counts."""
        logger.info("the first hop says: %s", frame.message)

    async def _opened(self, epoch: _Epoch, stage: int, *, is_output: bool) -> FrameStream | None:
        peer_id = epoch.route[stage].peer_id
        try:
            async with asyncio.timeout(OPEN_S):
                return await self._network.open_chain(peer_id, epoch.hello(stage, is_output=is_output))
        except (PeerUnreachable, TimeoutError):
            self._on_broken(peer_id, epoch.number, "it cannot be reached")
            return None

    def _on_first_broken(self, epoch: int) -> None:
        if self._epoch is not None:
            self._on_broken(self._epoch.route[0].peer_id, epoch, "its stream ended")
