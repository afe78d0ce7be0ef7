"""Real server processes behind slow links, and with too little room for all who want it at once."""

import asyncio
from pathlib import Path

import pytest

from swarm.client import SwarmModel
from tests.end_to_end.conversations import answer, expected_ids, open_client
from tests.end_to_end.linked import linked_server
from tests.end_to_end.processes import Forge, open_process_swarm
from tests.end_to_end.swarm import spans

DELAY_S = 0.05
SPANS = ("0:2", "2:5", "5:6")
NUM_TOKENS = 12

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
async def test_a_chain_over_slow_links_is_exact_and_flows_from_server_to_server(
    forge: Forge, talking_model: Path
) -> None:
    expected = expected_ids(talking_model, NUM_TOKENS)
    with open_process_swarm(forge, talking_model) as swarm:
        first, middle, last = (linked_server(swarm, blocks, DELAY_S) for blocks in SPANS)
        async with (
            first,
            middle,
            last,
            open_client(swarm.initial_peers, talking_model) as model,
            model.session() as session,
        ):
            assert await answer(model, session, NUM_TOKENS) == expected
            assert spans(session.route) == [(0, 2), (2, 5), (5, 6)]
            counters = session.counters
            assert counters.steps_out == counters.results_in == NUM_TOKENS
            assert (counters.direct_links, counters.relayed_frames) == (2 * NUM_TOKENS, 0)
            assert counters.rebinds == 1


async def test_sessions_that_hold_what_others_need_all_come_to_their_end(
    forge: Forge, talking_model: Path
) -> None:
    """Each server has room for one at a time; who came first at one need not have come first at the other."""
    prompts = [tuple((7 * number + 3 * at) % 200 + 3 for at in range(180)) for number in range(4)]
    expected = [expected_ids(talking_model, NUM_TOKENS, prompt) for prompt in prompts]
    with open_process_swarm(forge, talking_model) as swarm:
        servers = [swarm.begin(blocks, "--kv-tokens", "320") for blocks in ("0:3", "3:6")]
        for server in servers:
            await asyncio.to_thread(server.wait_ready)

        async def talk(model: SwarmModel, number: int) -> None:
            async with model.session() as session:
                await answer(model, session, 1, prompt=prompts[number][:90])
                session.rollback(0)
                ids = await answer(model, session, NUM_TOKENS, prompt=prompts[number])
                assert ids == expected[number]

        async with (
            open_client(swarm.initial_peers, talking_model) as one,
            open_client(swarm.initial_peers, talking_model) as other,
            asyncio.TaskGroup() as group,
        ):
            for number in range(4):
                group.create_task(talk(one if number % 2 else other, number))
        for server in servers:
            assert server.exit_code is None
            assert "Traceback" not in server.log
