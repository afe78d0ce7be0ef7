"""Sessions that ended in every way have left no task and no object, on servers in this very process."""

import asyncio
import time
from collections import Counter

import pytest

from server.session_table import TOMBSTONE_S
from tests.end_to_end.attacker import open_attacker
from tests.end_to_end.endings import ENDINGS, People, end_in_every_way
from tests.end_to_end.exact import small_model
from tests.end_to_end.resources import LEARNED, RENEWED, own_objects, tasks
from tests.end_to_end.swarm import BlockServer, Offer, Swarm, open_swarm

SPANS = ((0, 3), (3, 6))
NUM_SESSIONS = 40
SETTLED_S = 8.0


def forget_tombstones(server: BlockServer) -> None:
    """They are there on purpose, for a minute."""
    server.host.table.expire(time.monotonic() + TOMBSTONE_S)


async def settled(swarm: Swarm, before: Counter[str]) -> Counter[str]:
    """Tasks and objects that were not there `before`, once there are none, or after a while."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        await asyncio.sleep(0.2)
        for server in swarm.servers:
            forget_tombstones(server)
        more = tasks() + own_objects() - before
        for usual in (RENEWED, *LEARNED):
            del more[usual]
        if not more or time.monotonic() > deadline:
            return more


@pytest.mark.slow
async def test_sessions_that_ended_in_every_way_leave_no_task_and_no_object() -> None:
    model = small_model("llama")
    async with open_swarm(model, *(Offer(*span) for span in SPANS)) as swarm:
        first = swarm.servers[0]
        client = await swarm.client()
        async with open_attacker(
            first.peer_id, first.transport.addresses, model.checkpoint.fingerprint
        ) as stranger:
            people = People(client, stranger, SPANS[0])
            await end_in_every_way(people, sum(ENDINGS.values()))
            await swarm.check_clean()
            await asyncio.sleep(0.5)
            before = tasks() + own_objects()
            await end_in_every_way(people, NUM_SESSIONS)
            await swarm.check_clean()
            assert await settled(swarm, before) == Counter()
        for server in swarm.servers:
            host = server.host
            assert len(host.table) == host.num_attached == 0
            assert (host.buffers.accepted.held, host.buffers.queued.held) == (0, 0)
            assert host.table._budget.used_bytes == 0
            held = (host._drivers, host._tasks, host.rooms._caches, host.rooms._retired)
            assert not any(held)
