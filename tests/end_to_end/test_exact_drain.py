"""A server that is about to stop hands its pages over: nothing is computed again, and no bit changes."""

from collections.abc import Callable

import pytest
import torch

from server.session_table import Refused
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import BlockServer, Client, Offer, open_swarm, until

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


async def test_a_drain_changes_no_bit_in_bf16() -> None:
    model = small_model("llama", "bfloat16")
    ids = prompt(2, 120)
    outputs = []
    for is_drained in (False, True):
        async with open_swarm(model, *offers_with_spare(1)) as swarm:
            client = await swarm.client()
            async with client.session() as session:
                parts = [await session.feed(ids[:100], rows=100)]
                if is_drained:
                    await drain(swarm.servers[1], client)
                parts += [await session.feed(ids[100:101]), await session.feed(ids[101:], rows=19)]
                assert (swarm.path(session)[1] is swarm.servers[3]) == is_drained
            outputs.append(torch.cat(parts))
            await swarm.check_clean()
    assert torch.equal(*outputs)


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
