"""Every family, every way to cut it, everything a session can do: the answer is the unsplit model's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import torch

from tests.end_to_end.exact import FAMILIES, Answer, SmallModel, check_answer, prompt, small_model
from tests.end_to_end.swarm import BlockServer, Client, Offer, Swarm, open_swarm, spans, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW, FAST = 20.0, 1e5
OFFERS = {
    "whole": Offer(0, 6),
    "first": Offer(0, 2),
    "middle": Offer(2, 5, blocks_per_s=FAST),
    "last": Offer(5, 6),
    "left": Offer(0, 4, blocks_per_s=SLOW),
    "right": Offer(2, 6, blocks_per_s=SLOW),
}
ROUTES = {
    "one hop": (["whole"], [(0, 6)]),
    "two uneven hops": (["first", "right"], [(0, 2), (2, 6)]),
    "three hops": (["first", "middle", "last"], [(0, 2), (2, 5), (5, 6)]),
    "parts of spans that overlap": (["left", "middle", "right"], [(0, 2), (2, 5), (5, 6)]),
}
THREE_HOPS = ROUTES["three hops"][0]


class Place:
    """A swarm of one family with every span of OFFERS, and a client."""

    def __init__(self, swarm: Swarm, client: Client) -> None:
        self.swarm = swarm
        self.client = client
        self.model: SmallModel = swarm.model

    def servers(self, names: list[str]) -> list[BlockServer]:
        return [self.swarm.servers[list(OFFERS).index(name)] for name in names]


# BLOOM's head is tied as well: that is enough by default.
TIED = pytest.param("llama-tied", marks=pytest.mark.slow)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[*FAMILIES, TIED])
async def shared_place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with open_swarm(small_model(request.param), *OFFERS.values()) as swarm:
        yield Place(swarm, await swarm.client())


@pytest_asyncio.fixture(loop_scope="module")
async def place(shared_place: Place) -> AsyncIterator[Place]:
    yield shared_place
    await shared_place.swarm.check_clean()


@pytest.mark.parametrize("route", ROUTES)
async def test_an_answer_is_the_same_along_every_route(place: Place, route: str) -> None:
    names, wanted = ROUTES[route]
    async with place.client.session(*place.servers(names)) as session:
        await check_answer(place.model, session, prompt(1))
        assert spans(session.route) == wanted
        assert [server.span.start for server in place.swarm.path(session)] == [
            OFFERS[name].start for name in names
        ]


async def test_hidden_states_and_logits_are_the_same(place: Place) -> None:
    ids = prompt(2, 40)
    async with place.client.session(*place.servers(THREE_HOPS)) as session:
        place.model.check_hidden(ids[:30], await session.feed(ids[:30], rows=30))
        place.model.check_hidden(ids, await session.feed(ids[30:], rows=10))


async def test_an_answer_is_the_same_in_batches_with_sessions_that_use_other_blocks(place: Place) -> None:
    num_before = num_batches(place)
    async with AsyncExitStack() as stack:
        routes = [place.servers(names) for names, _ in ROUTES.values()] * 3
        sessions = [await stack.enter_async_context(place.client.session(*route)) for route in routes]
        async with asyncio.TaskGroup() as group:
            for number, session in enumerate(sessions):
                group.create_task(check_answer(place.model, session, prompt(number, 5 + 9 * (number % 4)), 8))
        num_steps = 8 * sum(map(len, routes))
        assert num_batches(place) - num_before < num_steps, "some ran together; about half, as measured"


async def test_a_long_prompt_goes_in_chunks(place: Place) -> None:
    ids = prompt(3, 334)
    async with place.client.session(*place.servers(THREE_HOPS)) as session:
        place.model.check_hidden(ids[:333], await session.feed(ids[:333], rows=150))
        assert session.counters.steps_out == 3
        await check_answer(place.model, session, ids, 8)


async def test_steps_of_hidden_states_do_what_steps_of_tokens_do(place: Place) -> None:
    ids = prompt(4, 12)
    async with place.client.session(*place.servers(THREE_HOPS)) as session:
        embedded = place.model.ends.embed(ids, 0)
        outputs = [await session.step(embedded[:9]), await session.step(embedded[9:10])]
        outputs.append(await session.feed(ids[10:], rows=2))
        place.model.check_hidden(ids, torch.cat(outputs))
        assert session.ids == [-1] * 10 + ids[10:]


async def test_forks_and_their_parent_go_different_ways(place: Place) -> None:
    model, ids = place.model, prompt(5, 40)
    async with place.client.session(*place.servers(THREE_HOPS)) as parent:
        await parent.feed(ids)
        async with parent.fork(37) as child, child.fork(20) as grandchild:
            await check_answer(model, child, ids[:37] + prompt(6, 3), 8)
            await check_answer(model, grandchild, ids[:20] + prompt(7, 2), 8)
            await check_answer(model, parent, ids + prompt(8, 1), 8)
            parent.rollback(10)
            await check_answer(model, parent, ids[:10] + prompt(9, 5), 8)
            child.rollback(37)
            await check_answer(model, child, ids[:37] + prompt(10, 4), 8)
            grandchild.rollback(20)
            await check_answer(model, grandchild, ids[:20] + prompt(11, 1), 8)
        assert executed(place, parent) == 40 + 1 + 7 + 5 + 7, "a fork costs its parent nothing"


async def test_an_answer_can_be_tried_again_and_the_prompt_be_cut(place: Place) -> None:
    model, ids = place.model, prompt(12, 30)
    async with place.client.session(*place.servers(THREE_HOPS)) as session:
        await check_answer(model, session, ids, 10)
        session.rollback(30)
        await check_answer(model, session, ids + prompt(13, 1), 10)
        session.rollback(29)
        await check_answer(model, session, ids, 10)
        session.rollback(11)
        await check_answer(model, session, ids[:11] + prompt(14, 3), 10)
        session.rollback(0)
        await check_answer(model, session, prompt(15), 10)


async def test_a_client_comes_back_and_nothing_is_computed_again(place: Place, tmp_path: Path) -> None:
    servers, identity = place.servers(THREE_HOPS), tmp_path / "identity"
    ids = prompt(16, 30)
    client = await place.swarm.client(identity=identity)
    session_is_open = client.session(*servers)
    session = await session_is_open.__aenter__()
    answer = Answer(place.model, session, ids, 20)
    await answer.advance(10)
    before = executed(place, session)
    assert before == 39
    ticket = session.ticket()
    client.kill()
    await session_is_open.__aexit__(None, None, None)
    await until(lambda: client.has_ended, 10.0, "the client has given up its identity")
    await until(lambda: not any(server.host.num_attached for server in servers), 3.0, "the client is gone")
    again = await place.swarm.client(identity=identity)  # it knows shorter routes as well
    async with again.session(ticket=ticket, ids=[*ids, *answer.ids]) as session:
        assert session.position == 39
        await check_answer(place.model, session, [*ids, *answer.ids], 10)
        assert place.swarm.path(session) == servers
        assert executed(place, session) == 39 + 10
    await again.leave()


async def test_a_session_that_was_detached_is_there_for_the_next_process(
    place: Place, tmp_path: Path
) -> None:
    servers, identity = place.servers(THREE_HOPS), tmp_path / "identity"
    ids = prompt(17, 30)
    client = await place.swarm.client(identity=identity)
    async with client.session(*servers) as session:
        answer = Answer(place.model, session, ids, 20)
        await answer.advance(10)
        ticket = session.detach()
    await client.leave()
    again = await place.swarm.client(identity=identity)
    async with again.session(ticket=ticket, ids=[*ids, *answer.ids]) as session:
        await check_answer(place.model, session, [*ids, *answer.ids], 10)
        assert executed(place, session) == 39 + 10
    await again.leave()


def num_batches(place: Place) -> int:
    """Batches that all servers have run."""
    return sum(server.host.executor.num_batches for server in place.swarm.servers)


def executed(place: Place, session: object) -> int:
    """Tokens that every hop has computed for one session; all the same number."""
    from swarm.inference import InferenceSession

    assert isinstance(session, InferenceSession)
    name = session.ticket()
    numbers = {
        hop_session.counters.executed_tokens
        for server in place.swarm.path(session)
        for hop_session in server.host.table.sessions()
        if bytes(hop_session.key.session) in name
    }
    assert len(numbers) == 1, numbers
    return numbers.pop()
