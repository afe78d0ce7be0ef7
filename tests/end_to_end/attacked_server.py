"""A server that strangers attack while somebody is being answered, and how it must be afterwards."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm.checkpoint import open_checkpoint
from swarm.client import SwarmModel
from tests.end_to_end.attacker import Attacker, Control, open_attacker
from tests.end_to_end.conversations import answer, expected_ids, open_client
from tests.end_to_end.processes import Forge, ProcessSwarm, Service, open_process_swarm

NOBODY = "12D3KooWBZHS9qihHDUMv7Yd5szVecNpokAAvzXpfZbRNVsfLKpU"
"""The id of a peer that does not exist."""
NUM_TOKENS = 40
KV_TOKENS = 16_384  # what a server has by default
MAX_GROWTH_BYTES = 24 << 20  # at the peak; a full queue to a successor that does not read is 13 MiB
MAX_P2PD_GROWTH_BYTES = 64 << 20
SETTLED_TRIES = 150  # what a flooder who is gone had sent is read slowly, and all sessions in it are opened
SETTLED_TRY_S = 0.1


@dataclass
class Target:
    """A server that hosts the whole model, and how to join its swarm."""

    swarm: ProcessSwarm
    server: Service
    model: Path
    fingerprint: str


@contextmanager
def open_target(forge: Forge, model: Path) -> Iterator[Target]:
    """Start a swarm of one such server."""
    with open_process_swarm(forge, model) as swarm:
        (server,) = swarm.start("0:6")
        yield Target(swarm, server, model, open_checkpoint(str(model)).fingerprint)


@asynccontextmanager
async def talking(model: SwarmModel, path: Path) -> AsyncIterator[None]:
    """Answers are written, one after the other, for the length of the block: all of them exact."""
    is_over, num_answers = asyncio.Event(), 0

    async def talk() -> None:
        nonlocal num_answers
        while not is_over.is_set() or not num_answers:
            async with model.session() as session:
                assert await answer(model, session, NUM_TOKENS) == expected_ids(path, NUM_TOKENS)
            num_answers += 1

    expected_ids(path, NUM_TOKENS)
    async with asyncio.TaskGroup() as group:
        group.create_task(talk())
        yield
        is_over.set()


@asynccontextmanager
async def attack(target: Target) -> AsyncIterator[Attacker]:
    """A stranger, while somebody talks; afterwards the server must be as it was before."""
    server = target.server
    async with (
        open_client(target.swarm.initial_peers, target.model) as model,
        open_attacker(server.peer_id, server.addresses, target.fingerprint) as witness,
    ):
        control = await witness.control()
        async with model.session() as session:
            await answer(model, session, 2)
        free = await free_tokens(control, KV_TOKENS)
        server.forget_peaks()
        before, p2pd_before = server.peak_bytes, server.p2pd_peak_bytes
        async with (
            talking(model, target.model),
            open_attacker(server.peer_id, server.addresses, target.fingerprint) as attacker,
        ):
            yield attacker
        assert server.exit_code is None
        assert await free_tokens(control, free) == free
        assert server.peak_bytes - before < MAX_GROWTH_BYTES
        assert server.p2pd_peak_bytes - p2pd_before < MAX_P2PD_GROWTH_BYTES
    assert "Traceback" not in server.log, server.log


async def free_tokens(control: Control, wanted: int = 0) -> int:
    """Free KV tokens, once there are `wanted`, or after a while."""
    free = 0
    for _ in range(SETTLED_TRIES):
        free = (await control.vitals()).free_tokens
        if wanted and free >= wanted:
            break
        await asyncio.sleep(SETTLED_TRY_S)
    return free
