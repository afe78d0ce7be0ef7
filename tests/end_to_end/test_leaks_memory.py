"""Sessions with much in their caches, more than fits: what they held in memory and on disk is given back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from swarm.checkpoint import open_checkpoint
from swarm.client import SwarmModel
from tests.end_to_end.attacker import Control, open_attacker
from tests.end_to_end.conversations import open_client
from tests.end_to_end.endings import opened, some_ids
from tests.end_to_end.processes import Forge, Service, open_process_swarm
from tests.end_to_end.resources import SPILLED, Figures
from tests.models import make_model
from tests.swarm.tokenizers_for_tests import byte_level

LARGE: dict[str, Any] = {"num_key_value_heads": 8, "head_dim": 128}  # 48 KiB for a token of the whole model
KV_TOKENS = 2048
SESSION_TOKENS = 600
KEPT_S = 60.0
SETTLED_S = 10.0
GROWTH = 1.05

pytestmark = pytest.mark.timeout(120)


def make_large_model(folder: Path) -> Path:
    """Write a LLaMA whose keys and values are large for its size."""
    tokenizer = byte_level()
    path = make_model(folder, "llama", vocab_size=len(tokenizer), **LARGE)
    tokenizer.save_pretrained(path)
    return path


@asynccontextmanager
async def witness_of(server: Service, model: Path) -> AsyncIterator[Control]:
    """Somebody who sees how much room there is."""
    fingerprint = open_checkpoint(str(model)).fingerprint
    async with open_attacker(server.peer_id, server.addresses, fingerprint) as stranger:
        yield await stranger.control()


async def leave_and_come_back(model: SwarmModel, server: Service, num_sessions: int) -> int:
    """Detach from sessions one after the other, attach to each again, go on, and close it.

    Returns how many were on disk when all had been left.
    """
    left = []
    for number in range(num_sessions):
        ids = some_ids(number, SESSION_TOKENS)
        async with opened(model, number, ids, lease_ms=int(KEPT_S * 1000)) as session:
            left.append((session.detach(), session.ids))
    num_spilled = Figures.of(server.pid).descriptors[SPILLED]
    for ticket, ids in left:
        async with model.session(ticket=ticket, ids=ids) as session:
            await session.feed([5])
    return num_spilled


async def settled(server: Service, witness: Control, most_bytes: float) -> Figures:
    """Wait until the server has all its room, nothing on disk, and no more than `most_bytes` in memory."""
    deadline = asyncio.get_running_loop().time() + SETTLED_S
    while True:
        now, room = Figures.of(server.pid), (await witness.vitals()).free_tokens
        if room == KV_TOKENS and not now.descriptors[SPILLED] and now.resident_bytes <= most_bytes:
            return now
        is_late = asyncio.get_running_loop().time() > deadline
        assert not is_late, (
            f"room: {room}; {now.resident_bytes >> 20} MiB instead of {most_bytes / 2**20:.0f}"
        )
        await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_what_a_full_pool_held_in_memory_and_on_disk_is_given_back(
    forge: Forge, tmp_path: Path
) -> None:
    model = make_large_model(tmp_path)
    with open_process_swarm(forge, model) as swarm:
        server = swarm.begin("0:6", "--kv-tokens", str(KV_TOKENS))
        server.wait_ready()
        async with open_client(swarm.initial_peers, model) as client, witness_of(server, model) as witness:
            assert await leave_and_come_back(client, server, 1) == 0
            before = await settled(server, witness, float("inf"))
            assert await leave_and_come_back(client, server, 6) >= 3
            after = await settled(server, witness, GROWTH * before.resident_bytes)
        assert after.num_threads <= before.num_threads
        assert "Traceback" not in server.log
