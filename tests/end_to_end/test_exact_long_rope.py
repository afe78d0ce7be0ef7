"""`longrope`: a session that grows beyond the original length is computed anew, and back below it as well."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarm.checkpoint.rope_lengths import short_positions
from swarm.inference import InferenceSession
from tests.end_to_end.exact import HIDDEN_TOLERANCE, SmallModel, load_small_model, prompt
from tests.end_to_end.swarm import Offer, Swarm, open_swarm
from tests.models import make_model
from tests.server.test_families_rope import LONG, ORIGINAL

OFFERS = [Offer(0, 2), Offer(2, 6, blocks_per_s=1e5), Offer(2, 6, blocks_per_s=100.0)]


@pytest.fixture(scope="module")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    return load_small_model(make_model(tmp_path_factory.mktemp("models"), "phi3", **LONG))


@asynccontextmanager
async def a_swarm(model: SmallModel) -> AsyncIterator[Swarm]:
    async with open_swarm(model, *OFFERS) as swarm:
        yield swarm
        await swarm.check_clean()


async def check_greedy(
    model: SmallModel, session: InferenceSession, ids: list[int], length: int
) -> list[int]:
    """Let the session go on from `ids` as `generate` does; returns all of the conversation's ids."""
    wanted = model.greedy(ids, length)
    for place in range(length):
        hidden = await session.feed([*ids, *wanted[:place]][session.position :])
        assert int(model.ends.logits(hidden)[-1].argmax()) == wanted[place], f"at {session.position}"
    return [*ids, *wanted]


async def check_next(model: SmallModel, session: InferenceSession, ids: list[int]) -> None:
    """Feed what the session lacks of `ids`, and compare the output behind the last with the reference's."""
    hidden = await session.feed(ids[session.position :])
    assert (hidden[-1] - model.outputs(ids)[0][-1]).abs().max() <= HIDDEN_TOLERANCE


async def test_an_answer_across_the_original_length_is_that_of_generate(phi3: SmallModel) -> None:
    async with a_swarm(phi3) as swarm:
        client = await swarm.client()
        async with client.session() as crossing, client.session() as short:
            ids = await check_greedy(phi3, crossing, prompt(1, ORIGINAL - 5), 10)
            await check_greedy(phi3, short, prompt(2, 20), 4)
            assert crossing.counters.rebinds == 2
            swarm.path(crossing)[1].kill()
            ids = await check_greedy(phi3, crossing, ids, 4)
            await check_next(phi3, crossing, ids)
            await check_next(phi3, short, short.ids + prompt(3, 3))


async def test_long_sessions_fork_roll_back_and_come_back_as_exactly(phi3: SmallModel) -> None:
    ids = prompt(4, ORIGINAL + 20)
    async with a_swarm(phi3) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await check_next(phi3, session, ids)
            for shared in (ORIGINAL + 10, 30):
                async with session.fork(shared) as child:
                    await check_next(phi3, child, ids[:shared] + prompt(5, 2))
            session.rollback(40)
            await check_next(phi3, session, ids[:40] + prompt(6, 3))
            await check_next(phi3, session, ids[:40] + prompt(6, 3) + prompt(7, ORIGINAL))
            held, ticket = session.ids, session.detach()
        async with client.session(ticket=ticket, ids=held) as again:
            await check_next(phi3, again, held + prompt(8, 2))
            assert again.counters.rebinds == 1


def test_only_longrope_has_a_short_length(phi3: SmallModel) -> None:
    assert short_positions(phi3.checkpoint.config) == ORIGINAL
