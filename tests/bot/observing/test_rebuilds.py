"""Sessions that servers have to be told again are counted, in a real swarm; those that go on are not."""

from pathlib import Path

import pytest

from bot.brain import Request
from bot.clock import RealClock
from bot.observing.coverage import swarm_trouble
from bot.observing.metrics import Metrics
from bot.sessions.brain import open_brain
from bot.sessions.pool import Limits
from storage.database import open_database
from storage.live_sessions import kept_session
from swarm.client import SwarmModel
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.bot.observing.test_metrics import value
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import SmallModel, load_small_model, prompt
from tests.end_to_end.swarm import Offer, open_swarm
from tests.storage.people import talk

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=4)
LEASE_OVER = Limits(lease_ms=-1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return load_small_model(make_talking_model(tmp_path_factory.mktemp("talking")))


async def rebuilds_after_a_restart(
    small: SmallModel, store_path: Path, identity: Path, limits: Limits
) -> float:
    """Ask twice with a restart between, and return how many rebuilds were counted."""
    metrics = Metrics()
    ids = prompt(1, 40)
    async with open_swarm(small, Offer(0, 6)) as swarm, open_database(store_path) as store:
        await store.write(talk)
        for _ in range(2):
            client = await swarm.client(identity=identity)
            model = SwarmModel(small.checkpoint, small.ends, load_tokenizer(small.checkpoint), client.network)
            async with open_brain(model, store, RealClock(), limits, metrics) as brain:
                async with brain.write(Request(1, ids, GREEDY), lambda event: None) as writing:
                    async for _ in writing:
                        pass
                assert (brain.pool.num_live, brain.pool.num_rebuilding) == (1, 0)
            ids = [*ids, *writing.ids, *prompt(2, 3)]
            assert await store.read(kept_session, 1) is not None
            await client.leave()
    return value(metrics, "session_rebuilds_total", cause="parked")


async def test_a_session_that_is_attached_to_again_is_no_rebuild(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    assert await rebuilds_after_a_restart(small, store_path, tmp_path / "key", Limits()) == 0


async def test_a_session_whose_lease_is_over_is_rebuilt(
    small: SmallModel, store_path: Path, tmp_path: Path
) -> None:
    assert await rebuilds_after_a_restart(small, store_path, tmp_path / "key", LEASE_OVER) == 1


async def test_blocks_that_nobody_serves_are_named(small: SmallModel) -> None:
    async with open_swarm(small, Offer(0, 3)) as swarm:
        client = await swarm.client()
        trouble = swarm_trouble(client.network)
        assert trouble.startswith("the swarm cannot answer: no server for blocks 3-5; ")
        await swarm.add(Offer(3, 6))
        await client.network.directory.refresh()
        assert swarm_trouble(client.network) == ""
