"""A server that is about to stop hands its pages over: nothing is computed again, and no bit changes."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
import torch

from server.session_table import Refused
from swarm.inference import InferenceSession
from tests.end_to_end.exact import Answer, check_answer, each_family, prompt, small_model
from tests.end_to_end.swarm import BlockServer, Client, Offer, open_swarm, spans, until

SPANS = [(0, 2), (2, 5), (5, 6)]
FAST = 1e5
HOPS = pytest.mark.parametrize("hop", [0, 1, 2], ids=["first", "middle", "last"])


def offers_with_spare(hop: int) -> list[Offer]:
    """Three hops, and a slower second server for one of them."""
    return [*(Offer(*span, blocks_per_s=FAST) for span in SPANS), Offer(*SPANS[hop], blocks_per_s=100.0)]


async def drain(server: BlockServer, client: Client) -> None:
    """Let it drain, and wait until the client has heard."""
    connection = client.network.connection(server.peer_id)
    assert connection is not None
    server.drain()
    await until(lambda: connection.is_draining, 2.0, "the client is told")


@HOPS
async def test_a_server_that_drains_hands_its_pages_over(hop: int) -> None:
    model, ids = small_model("llama"), prompt(1, 150)
    async with open_swarm(model, *offers_with_spare(hop)) as swarm:
        client = await swarm.client()
        old, spare = swarm.servers[hop], swarm.servers[3]
        async with client.session() as session:
            ids = await check_answer(model, session, ids, 6)
            await drain(old, client)
            await check_answer(model, session, ids, 6)
            assert swarm.path(session)[hop] is spare
            assert old.host.num_exports == 1
            assert spare.executed_tokens == 1 + 5, "only what came after the commit"
            assert {server.recomputed_tokens for server in swarm.living} == {0}
            await until(lambda: not len(old.host.table), 2.0, "nobody needs the old server any more")
        await swarm.check_clean()


async def advance(answers: Sequence[Answer], num_tokens: int | None = None) -> None:
    """Let all of them go on at once, so that they share batches."""
    async with asyncio.TaskGroup() as group:
        for answer in answers:
            group.create_task(answer.advance(num_tokens))


@each_family({"bloom", "deepseek-v3"})
async def test_every_family_says_the_same_where_a_server_drains_amid_answers(family: str) -> None:
    model, ids = small_model(family), prompt(4, 45)
    async with open_swarm(model, *offers_with_spare(1)) as swarm:
        client = await swarm.client()
        old, spare = swarm.servers[1], swarm.servers[3]
        async with client.session() as parent, client.session() as other:
            await parent.feed(ids)
            async with parent.fork(40) as child:
                answers = [
                    Answer(model, parent, ids + prompt(5, 1), 16),
                    Answer(model, child, ids[:40] + prompt(6, 3), 16),
                    Answer(model, other, prompt(7, 20), 16),
                ]
                await advance(answers, 6)
                async with asyncio.TaskGroup() as group:
                    group.create_task(advance(answers, 4))
                    group.create_task(drain(old, client))
                await advance(answers)
                assert {swarm.path(session)[1] for session in (parent, child, other)} == {spare}
                assert old.host.num_exports == 3
                assert {server.recomputed_tokens for server in swarm.living} == {0}
                await until(lambda: not len(old.host.table), 2.0, "nobody needs the old server any more")
            parent.rollback(30)
            await check_answer(model, parent, ids[:30] + prompt(8, 2), 4)
        await swarm.check_clean()


@each_family({"llama"})
async def test_in_bf16_neither_a_cut_nor_a_drain_nor_a_return_changes_a_bit(family: str) -> None:
    model = small_model(family, "bfloat16")
    async with open_swarm(model, *offers_with_spare(1), Offer(0, 6, blocks_per_s=1.0)) as swarm:
        client = await swarm.client()
        first, old, _, spare, whole = swarm.servers
        async with client.session(whole) as session:
            await feed_start(session)
            wanted = await feed_rest(session)
        async with client.session() as session:
            await feed_start(session)
            assert spans(session.route) == SPANS
            ticket, held = session.detach(), session.ids
        async with client.session(ticket=ticket, ids=held) as session:
            assert torch.equal(await feed_rest(session), wanted), "cut, and come back to"
            assert first.executed_tokens == 120, "every token once"
        async with client.session() as session:
            await feed_start(session)
            await drain(old, client)
            assert torch.equal(await feed_rest(session), wanted), "drained"
            assert swarm.path(session)[1] is spare
            assert spare.executed_tokens == 18, "only what came after the commit"
        await swarm.check_clean()


async def feed_start(session: InferenceSession) -> None:
    """A prompt and two tokens."""
    ids = prompt(2, 120)
    for place in (slice(0, 100), slice(100, 101), slice(101, 102)):
        await session.feed(ids[place])


async def feed_rest(session: InferenceSession) -> torch.Tensor:
    """What else the session is told, one token and several; what the last block gives out for them."""
    ids = prompt(2, 120)
    return torch.cat([await session.feed(ids[102:103]), await session.feed(ids[103:], rows=17)])


def refuse(server: BlockServer) -> None:
    """Say no to whoever wants pages."""
    raise Refused("internal", "the pages cannot be read")


@pytest.mark.parametrize("fail", [refuse, BlockServer.kill], ids=["refuses", "dies"])
async def test_a_copy_that_fails_is_replaced_by_a_replay(fail: Callable[[BlockServer], None]) -> None:
    model, ids = small_model("llama"), prompt(3, 150)
    async with open_swarm(model, *offers_with_spare(1)) as swarm:
        client = await swarm.client()
        old, spare = swarm.servers[1], swarm.servers[3]
        old.host.before_export = lambda: fail(old)  # type: ignore[method-assign]
        async with client.session() as session:
            ids = await check_answer(model, session, ids, 6)
            await drain(old, client)
            await check_answer(model, session, ids, 6)
            assert swarm.path(session)[1] is spare
            assert old.host.num_exports == 1
            assert spare.executed_tokens == 150 + 6 + 5, "replayed"
            assert swarm.servers[0].executed_tokens == 150 + 6 + 5, "from the log of the hop before"
        await swarm.check_clean()
