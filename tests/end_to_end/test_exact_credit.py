"""Little room: sessions grow, wait, are put aside and come back, and stay what they were to the last bit."""

import asyncio

import pytest
import torch

from swarm.errors import PeerBusy
from tests.devices import blocks_device
from tests.end_to_end.exact import HIDDEN_TOLERANCE, check_answer, prompt, small_model
from tests.end_to_end.swarm import BlockServer, Client, Offer, open_swarm, until


async def test_a_session_outgrows_what_it_was_granted_first() -> None:
    model, ids = small_model("llama"), prompt(1, 620)
    async with open_swarm(model, Offer(0, 3, room_tokens=656), Offer(3, 6)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            for start in range(0, 600, 60):
                await session.feed(ids[start : start + 60])
            await check_answer(model, session, ids, 20)
        await swarm.check_clean()


async def test_two_sessions_share_a_pool_that_has_room_for_one() -> None:
    model = small_model("llama")
    async with open_swarm(model, Offer(0, 6, room_tokens=320)) as swarm:
        client = await swarm.client()

        async def talk(number: int) -> None:
            ids = prompt(number, 200)
            async with client.session() as session:
                await session.feed(ids[:100])
                await check_answer(model, session, ids, 12)

        async with asyncio.TaskGroup() as group:
            group.create_task(talk(2))
            group.create_task(talk(3))
        await swarm.check_clean()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_clients_sessions_that_hold_what_others_need_do_not_wait_for_ever() -> None:
    """One of thirty rounds did: one came back to less than it was promised, and its retries spared it."""
    model = small_model("llama")
    little = [Offer(at, at + 3, room_tokens=320, spill_bytes=1 << 28) for at in (0, 3)]
    async with open_swarm(model, *little) as swarm:
        clients = [await swarm.client() for _ in range(2)]

        async def talk(number: int) -> None:
            async with clients[number % 2].session() as session:
                await check_answer(model, session, prompt(number, 90), 2)
                session.rollback(0)
                await check_answer(model, session, prompt(number, 180), 24)

        for _ in range(8):
            async with asyncio.TaskGroup() as group:
                for number in range(1, 5):
                    group.create_task(talk(number))
        await swarm.check_clean()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_session_that_no_server_has_room_for_hears_that_they_are_busy() -> None:
    async with open_swarm(small_model("llama"), Offer(0, 6, room_tokens=64)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await session.feed(prompt(4, 60))
            session.driver.patience.recover_s = 6.0
            with pytest.raises(PeerBusy):
                await session.feed(prompt(5, 60))
            assert session.position == 60
            await session.feed(prompt(5, 2))  # a later step may fare better
        await swarm.check_clean()


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
async def test_a_session_that_was_put_aside_comes_back_to_the_last_bit(dtype: str) -> None:
    model = small_model("llama", dtype)
    async with open_swarm(model, Offer(0, 6, room_tokens=320, spill_bytes=1 << 28)) as swarm:
        client, [server] = await swarm.client(), swarm.servers
        alone = await _three_outputs(client, server, is_put_aside=False)
        beside = await _three_outputs(client, server, is_put_aside=True)
        is_same = (
            torch.equal if blocks_device().type == "cpu" else _nearly
        )  # where a GPU's tensors lie counts
        assert all(map(is_same, alone, beside))
        await swarm.check_clean()


def _nearly(output: torch.Tensor, same: torch.Tensor) -> bool:
    return torch.allclose(output, same, atol=HIDDEN_TOLERANCE)


async def _three_outputs(client: Client, server: BlockServer, *, is_put_aside: bool) -> list[torch.Tensor]:
    """What a session says before, and after another one has had the room."""
    ids = prompt(6, 210)
    async with client.session() as session:
        outputs = [await session.feed(ids[:200], rows=200)]
        if is_put_aside:
            async with client.session() as other:
                await other.feed(prompt(7, 200))
                assert server.executed_tokens == 200 + 200, "nothing was replayed to make room"
        outputs.append(await session.feed(ids[200:201]))
        outputs.append(await session.feed(ids[201:], rows=9))
        assert server.executed_tokens == 210
    await until(lambda: not server.pool.pages_in_use, 2.0, "pages are free")
    return outputs
