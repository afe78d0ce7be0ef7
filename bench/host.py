"""What a server does for a session's step beside the model: CPU time with 64 sessions / with 1, goal <= 1.1.

Driver, state machine, scheduler, batch and the way out run as they do in a server; the model is one that
costs nothing, and where a stream would be is the end. If a step cost more the more sessions there are, it
would show here.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import torch

from bench.report import Found, found
from server.attention import Chunk
from server.driver import SessionDriver
from server.executor import Executor
from server.host import Host, HostedModel
from server.kv_cache import KVPool
from swarm.background import running
from swarm.errors import PeerUnreachable
from swarm.streams import FrameStream
from swarm.wire.blocks import PeerId, Span
from swarm.wire.messages import Bind, Hello, Message, NextHop, Step

GOAL = 1.1
PAIRS = 15
FEW, SOME, MANY = 1, 8, 64
STEPS = 512  # of all sessions together, in each measurement
HIDDEN = 256
SPAN = Span(0, 8)
MODEL = HostedModel(SPAN, "f" * 64, HIDDEN, torch.float32)
LOG_BYTES = 64 << 20


async def measure(pairs: int = PAIRS) -> Found:
    """Measure few, some and many sessions in turn."""
    numbers = (FEW, SOME, MANY)
    times: list[list[float]] = []
    async with open_host() as host:
        groups = [await open_sessions(host, number) for number in numbers]
        for _ in range(1 + pairs):
            times.append([await _step_s(group) for group in groups])
    few, some, many = (1e6 * statistics.median(column) for column in zip(*times[1:], strict=True))
    return found(
        "host",
        f"CPU time of a step beside the model, {MANY} sessions / {FEW}",
        [(row[0], row[2]) for row in times[1:]],
        GOAL,
        is_least=False,
        few_us=round(few, 1),
        some_us=round(some, 1),
        many_us=round(many, 1),
    )


class Group:
    """Sessions that take their steps together."""

    def __init__(self) -> None:
        self._drivers: list[SessionDriver] = []
        self._position = 0
        self._num_missing = 0
        self._is_done = asyncio.Event()

    def __len__(self) -> int:
        return len(self._drivers)

    def add(self, driver: SessionDriver) -> None:
        """One session more, whose results come to us."""
        assert driver.outgoing.attach(cast(FrameStream, self), driver.session.epoch)
        self._drivers.append(driver)

    async def step(self) -> None:
        """One step of each session; returns when all results have left."""
        at = self._position
        step = Step(
            epoch=1,
            seq=at,
            attempt=0,
            position=at,
            num_tokens=1,
            base_tag=at,
            tag=at + 1,
            commit=at,
            rows=1,
        )
        self._num_missing = len(self._drivers)
        self._is_done.clear()
        hidden = torch.zeros(1, HIDDEN)
        for driver in self._drivers:
            driver.on_frame(step, hidden)
        await self._is_done.wait()
        self._position += 1

    def write_nowait(self, message: Message, tensors: Sequence[torch.Tensor] = ()) -> bool:
        """Take a result, as a stream does whose peer keeps up."""
        self._num_missing -= 1
        if not self._num_missing:
            self._is_done.set()
        return True

    def close(self) -> None:
        """Nothing is open."""


async def _step_s(group: Group) -> float:
    """CPU seconds that one step of one session takes."""
    before = time.process_time()
    for _ in range(STEPS // len(group)):
        await group.step()
    return (time.process_time() - before) / STEPS


@asynccontextmanager
async def open_host() -> AsyncIterator[Host]:
    """A server's sessions, without a network."""
    pool = KVPool(100_000_000)
    async with Executor(_Free(), pool) as executor:
        host = Host(MODEL, pool, executor, _nobody, LOG_BYTES)
        async with running(host.run_forever()):
            await asyncio.sleep(0)
            yield host


async def open_sessions(host: Host, number: int) -> Group:
    """Open `number` sessions of the one client: beside others, not all of them would run in one batch."""
    group, client = Group(), PeerId("client")
    for place in range(number):
        session = (number << 32 | place).to_bytes(16)
        bind = Bind(
            session=session,
            epoch=1,
            stage=0,
            num_stages=1,
            start=SPAN.start,
            end=SPAN.end,
            fingerprint=MODEL.fingerprint,
            previous=client,
            next=None,
            commit=0,
        )
        host.bind(client, bind, _Deaf())
        group.add(await host.admit(client, Hello(client=client, session=session, epoch=1, stage=0)))
    return group


class _Free:
    """A model that costs nothing."""

    hidden_size = HIDDEN
    max_positions: int | None = None
    progress = 0
    turn = None

    def run(self, chunks: Sequence[Chunk]) -> list[torch.Tensor]:
        for chunk in chunks:
            chunk.cache.used = chunk.end
        return [chunk.hidden for chunk in chunks]


class _Deaf:
    """A client that is told everything."""

    def send(self, message: Message) -> None:
        """Hear nothing."""


async def _nobody(next_hop: NextHop, hello: Hello) -> FrameStream:
    raise PeerUnreachable("nobody is there", PeerId(next_hop.peer))
