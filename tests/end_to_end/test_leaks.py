"""Sessions that ended in every way have left nothing behind on real servers, nor in the client."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.fitting import DEFAULT_KV_TOKENS
from swarm.streams import CLOSE_S
from tests.end_to_end.attacker import Control, open_attacker
from tests.end_to_end.conversations import open_client
from tests.end_to_end.doomed.__main__ import READY
from tests.end_to_end.endings import People, closed, end_in_every_way
from tests.end_to_end.processes import Forge, ProcessSwarm, Service, open_process_swarm, wait_until
from tests.end_to_end.resources import LEARNED, RENEWED, Figures, ServiceFigures, own_objects, tasks

SPANS = ((0, 3), (3, 6))
SETTLED_S = 15.0
GROWTH = 1.05
FEW = 12
# Go lets as much garbage lie as there is alive before it looks for it. So in its first 500 sessions a p2pd
# grows from 64 to 90 MiB, and then no more; with GOGC=25 it has 63 MiB after 12 sessions and 66 after 600.
P2PD_HEAP_BYTES = 40 << 20
P2PD_SPARE_BYTES = 12 << 20  # in 60 sessions on the way there

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Place:
    """Two servers, those who open sessions on them, and at each server a witness of its room."""

    swarm: ProcessSwarm
    model: Path
    servers: tuple[Service, ...]
    people: People
    witnesses: tuple[Control, ...]

    async def free_tokens(self) -> set[int]:
        """How much room there is on the servers."""
        return {(await witness.vitals()).free_tokens for witness in self.witnesses}

    def figures(self) -> list[ServiceFigures]:
        """What the servers take now."""
        return [ServiceFigures.of(server) for server in self.servers]

    async def settle(self, before: list[ServiceFigures] | None = None) -> list[ServiceFigures]:
        """Wait until all is given back; returns what the servers take then.

        Leases end and streams close in their time. Raises AssertionError if they do not.
        """
        deadline = asyncio.get_running_loop().time() + SETTLED_S
        while True:
            after, room = self.figures(), await self.free_tokens()
            left = [now.more_than(then) for now, then in zip(after, before or after, strict=True)]
            if not any(left) and room == {DEFAULT_KV_TOKENS}:
                return after
            assert asyncio.get_running_loop().time() < deadline, f"left behind: {left}; room: {room}"
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def swarm(forge: Forge, talking_model: Path) -> Iterator[ProcessSwarm]:
    with open_process_swarm(forge, talking_model) as swarm:
        swarm.start(*(f"{start}:{end}" for start, end in SPANS))
        yield swarm


@asynccontextmanager
async def open_place(swarm: ProcessSwarm, model: Path) -> AsyncIterator[Place]:
    """A client and two strangers, one of whom only looks on."""
    _, first, last = swarm.services
    fingerprint = open_checkpoint(str(model)).fingerprint
    async with (
        open_client(swarm.initial_peers, model) as client,
        open_attacker(first.peer_id, first.addresses, fingerprint) as stranger,
        open_attacker(last.peer_id, last.addresses, fingerprint) as other,
    ):
        witnesses = (await stranger.control(), await other.control())
        yield Place(swarm, model, (first, last), People(client, stranger, SPANS[0]), witnesses)


async def kill_a_client(place: Place, forge: Forge, num_sessions: int) -> None:
    """Kill the process of a client whose sessions are open, half of them with steps under way."""
    peers = place.swarm.initial_peers
    doomed = forge.run("tests.end_to_end.doomed", str(place.model), str(num_sessions), *peers)
    await asyncio.to_thread(wait_until, lambda: READY in doomed.output, 20, "the client has no sessions")
    assert max(await place.free_tokens()) < DEFAULT_KV_TOKENS
    doomed.send(signal.SIGKILL)
    await asyncio.to_thread(doomed.wait_exit, 5)


@pytest.mark.parametrize(
    ("warm_up", "num_sessions", "num_killed"),
    [
        pytest.param(FEW, 60, 8, id="60 sessions"),
        pytest.param(600, 1000, 100, id="1000 sessions", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
async def test_sessions_that_ended_in_every_way_leave_nothing_on_their_servers(
    swarm: ProcessSwarm, forge: Forge, talking_model: Path, warm_up: int, num_sessions: int, num_killed: int
) -> None:
    async with open_place(swarm, talking_model) as place:
        await end_in_every_way(place.people, FEW)
        await kill_a_client(place, forge, 4)
        first = await place.settle()
        await end_in_every_way(place.people, warm_up)
        before = await place.settle(first)
        await end_in_every_way(place.people, num_sessions)
        await kill_a_client(place, forge, num_killed)
        after = await place.settle(before)
        spare = 0 if warm_up >= 600 else P2PD_SPARE_BYTES
        for now, then, at_first in zip(after, before, first, strict=True):
            assert now.own.resident_bytes < GROWTH * at_first.own.resident_bytes
            assert now.p2pd.resident_bytes < GROWTH * then.p2pd.resident_bytes + spare
            assert now.p2pd.resident_bytes < at_first.p2pd.resident_bytes + P2PD_HEAP_BYTES
    for server in place.servers:
        assert "Traceback" not in server.log, server.log


def own_figures() -> Counter[str]:
    """Descriptors, tasks and objects of this very process."""
    found = Figures.of(os.getpid()).descriptors + tasks() + own_objects()
    for usual in (RENEWED, *LEARNED):
        del found[usual]
    return found


@pytest.mark.slow
async def test_a_client_that_opened_and_closed_300_sessions_is_as_it_was(
    swarm: ProcessSwarm, talking_model: Path
) -> None:
    async with open_place(swarm, talking_model) as place:

        async def talk(num_sessions: int) -> None:
            for first in range(0, num_sessions, 10):
                async with asyncio.TaskGroup() as group:
                    for number in range(first, first + 10):
                        group.create_task(closed(place.people, number))
            await place.settle()

        await talk(20)
        before, num_threads = own_figures(), threading.active_count()
        await talk(300)
        deadline = time.monotonic() + 2 * CLOSE_S
        while (more := own_figures() - before) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.3)
        assert more == Counter()
        assert threading.active_count() <= num_threads
