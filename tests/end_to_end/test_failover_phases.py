"""Servers are lost at bad moments: before, during and after a prompt, in pairs, while a loss is mended.

Over the three moments of a prompt every family loses every hop once, and two at once; `--all` has the rest.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarm.inference import InferenceSession
from swarm.notices import Notice
from tests.end_to_end.exact import LOST_HOPS, check_answer, every_family, prompt, small_model
from tests.end_to_end.swarm import Offer, Swarm, open_swarm, until

SPANS = [(0, 2), (2, 5), (5, 6)]
ANSWER_TOKENS = 6
PAIRS = {"first two": (0, 1), "both ends": (0, 2), "last two": (1, 2)}


@asynccontextmanager
async def one_session(*spares: int, family: str = "llama") -> AsyncIterator[tuple[Swarm, InferenceSession]]:
    """A session over three hops; `spares` say which of them have a second server, or a third."""
    primaries = [Offer(start, end, blocks_per_s=1e5) for start, end in SPANS]
    others = [Offer(*SPANS[hop], blocks_per_s=1000.0 / (1 + n)) for n, hop in enumerate(spares)]
    async with open_swarm(small_model(family), *primaries, *others) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await session.feed([])
            assert swarm.path(session) == swarm.servers[:3]
            yield swarm, session
        await swarm.check_clean()


async def finish(swarm: Swarm, session: InferenceSession, ids: list[int]) -> None:
    """Answer to the end, and see that nobody who lived computed anything twice."""
    await check_answer(swarm.model, session, ids, ANSWER_TOKENS)
    assert {server.recomputed_tokens for server in swarm.living} == {0}


@every_family("hop", LOST_HOPS)
async def test_a_server_may_go_before_the_prompt(family: str, hop: int) -> None:
    async with one_session(hop, family=family) as (swarm, session):
        swarm.servers[hop].kill()
        await finish(swarm, session, prompt(1))
        assert swarm.path(session)[hop] is swarm.servers[3]


async def test_a_loss_that_several_streams_tell_of_costs_one_bind() -> None:
    async with one_session(0) as (swarm, session):
        await session.feed(prompt(8))
        before = session.counters.rebinds
        swarm.servers[0].kill()
        await session.feed(prompt(9))
        assert session.counters.rebinds == before + 1


@every_family("hop", LOST_HOPS, turn=1)
async def test_a_server_may_go_while_a_prompt_comes_in_chunks(family: str, hop: int) -> None:
    ids = prompt(2, 700)
    async with one_session(hop, family=family) as (swarm, session):
        feeding = asyncio.create_task(session.feed(ids[:-1], rows=400))
        while not session.counters.results_in > 1:  # noqa: ASYNC110 - one was the empty step
            await asyncio.sleep(0)
        swarm.servers[hop].kill()
        assert session.counters.results_in < 6
        swarm.model.check_hidden(ids[:-1], await feeding)
        await finish(swarm, session, ids)


@every_family("hop", LOST_HOPS, turn=2)
async def test_a_server_may_go_right_after_the_prompt(family: str, hop: int) -> None:
    ids = prompt(3, 300)
    async with one_session(hop, family=family) as (swarm, session):
        await session.feed(ids[:-1])
        swarm.servers[hop].kill()
        await finish(swarm, session, ids)


@every_family("pair", PAIRS)
async def test_two_servers_may_go_at_once(family: str, pair: tuple[int, int]) -> None:
    ids = prompt(4, 150)
    async with one_session(*pair, family=family) as (swarm, session):
        await session.feed(ids[:-1])
        for hop in pair:
            swarm.servers[hop].kill()
        await finish(swarm, session, ids)


@pytest.mark.parametrize("second", ["its replacement", "its feeder", "its successor"])
async def test_a_second_server_may_go_while_the_first_is_replaced(second: str) -> None:
    ids = prompt(5, 1000)
    also_lost = {"its replacement": 1, "its feeder": 0, "its successor": 2}[second]
    async with one_session(1, also_lost) as (swarm, session):
        await session.feed(ids[:-1])
        replacement = swarm.servers[3]
        swarm.servers[1].kill()
        answering = asyncio.create_task(finish(swarm, session, ids))
        while not replacement.executed_tokens:  # noqa: ASYNC110 - caught in the act
            await asyncio.sleep(0)
        assert replacement.executed_tokens < len(ids) - 1
        (replacement if second == "its replacement" else swarm.servers[also_lost]).kill()
        await answering


async def test_a_frozen_server_is_replaced_and_disturbs_nobody_when_it_wakes() -> None:
    ids = prompt(6, 40)
    async with one_session(1) as (swarm, session):
        await session.feed(ids[:-1])
        frozen = swarm.servers[1]
        frozen.freeze()
        notices: list[Notice] = []
        session.on_notice = notices.append
        ids = await check_answer(swarm.model, session, ids, ANSWER_TOKENS)
        assert [notice.kind for notice in notices] == ["lost", "recovered"]
        assert frozen not in swarm.path(session)
        frozen.thaw()
        await finish(swarm, session, ids)
        await until(lambda: not frozen.host.num_attached, 3.0, "the server that woke notices that we left")
        frozen.kill()  # it keeps the session for as long as the lease lasts


async def test_a_model_without_a_spare_waits_for_one() -> None:
    ids = prompt(7, 40)
    async with one_session() as (swarm, session):
        await session.feed(ids[:-1])
        swarm.servers[1].kill()
        answering = asyncio.create_task(finish(swarm, session, ids))
        await swarm.add(Offer(*SPANS[1]))
        await answering
