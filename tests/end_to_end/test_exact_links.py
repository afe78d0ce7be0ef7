"""Who talks to whom: one message out and one in per token at the client, all else from server to server."""

from collections.abc import Callable

import pytest
import torch

from swarm.wire.blocks import Hop
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import Offer, open_swarm, until

THREE_HOPS = [Offer(0, 2), Offer(2, 5), Offer(5, 6)]


async def test_a_token_costs_the_client_one_message_out_and_one_in() -> None:
    model = small_model("llama")
    async with open_swarm(model, *THREE_HOPS) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await check_answer(model, session, prompt(1), 20)
            counters = session.counters
            assert (counters.steps_out, counters.results_in) == (20, 20)
            assert (counters.direct_links, counters.relayed_frames) == (2 * 20, 0)
            assert counters.rebinds == 1
        await swarm.check_clean()


async def test_a_link_that_a_hop_cannot_make_goes_through_the_client() -> None:
    model = small_model("llama")
    async with open_swarm(model, *THREE_HOPS) as swarm:
        first, middle, _ = swarm.servers
        first.cannot_reach.add(middle.peer_id)
        client = await swarm.client()
        async with client.session() as session:
            ids = await check_answer(model, session, prompt(2), 12)
            assert session.counters.relayed_frames == 12
            assert session.counters.rebinds == 2
            async with session.fork(9) as child:
                await check_answer(model, child, ids[:9] + prompt(3, 2), 4)
                assert child.counters.relayed_frames == 4, "a child knows what its parent found out"
        await swarm.check_clean()


async def test_a_relayed_link_is_replayed_over_when_a_server_goes() -> None:
    model = small_model("llama")
    async with open_swarm(model, *THREE_HOPS, Offer(2, 5, blocks_per_s=100.0)) as swarm:
        first, middle, _, spare = swarm.servers
        first.cannot_reach |= {middle.peer_id, spare.peer_id}
        client = await swarm.client()
        async with client.session() as session:
            ids = await check_answer(model, session, prompt(4), 6)
            swarm.path(session)[1].kill()
            await check_answer(model, session, ids, 6)
            assert {server.recomputed_tokens for server in swarm.living} == {0}
        await swarm.check_clean()


@pytest.mark.parametrize(
    "garble",
    [
        lambda output: output[:, :-1],
        lambda output: output.long(),
        lambda output: output[0, 0],
        lambda output: output * float("nan"),
        lambda output: output[None],
    ],
    ids=["too narrow", "whole numbers", "one number", "no numbers", "a dimension more"],
)
async def test_a_last_hop_whose_results_are_no_outputs_is_left(
    garble: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    model = small_model("llama")
    bad = Offer(3, 6, blocks_per_s=1e5, garble=lambda output: garble(output) if len(output) else output)
    async with open_swarm(model, Offer(0, 3), bad, Offer(3, 6)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await check_answer(model, session, prompt(6), 4)
            assert swarm.path(session)[1] is swarm.servers[2]
        await swarm.check_clean()


async def test_a_client_that_ends_at_once_has_said_its_farewells() -> None:
    model = small_model("llama")
    async with open_swarm(model, *THREE_HOPS) as swarm:
        for number in range(5):
            client = await swarm.client()
            async with client.session() as session:
                await session.feed(prompt(number))
            await client.leave()
            await swarm.check_clean()


async def test_servers_that_a_session_has_left_hold_nothing_for_it() -> None:
    model = small_model("llama")
    async with open_swarm(model, Offer(0, 6, blocks_per_s=1e5), Offer(0, 6)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            ids = await check_answer(model, session, prompt(5), 4)
            [left] = swarm.path(session)
            [other] = [server for server in swarm.servers if server is not left]
            await client.network.connections.reach(other.peer_id, other.transport.addresses)
            session.driver.bind((Hop(other.peer_id, other.span),))
            await check_answer(model, session, ids, 4)
            assert swarm.path(session) == [other]
            await until(lambda: not len(left.host.table), 2.0, "the old server has forgotten the session")
        await swarm.check_clean()
