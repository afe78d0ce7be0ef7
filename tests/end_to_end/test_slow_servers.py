"""A server that is slow is not lost: what it has in hand is waited for. One that hangs is."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch

from swarm.inference import InferenceSession
from swarm.notices import Notice
from swarm.patience import ACK_S
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import CLEAN_S, Offer, Swarm, open_swarm, until

STALL_S = 3.0
RECOVER_S = 4.0
PAUSE_S = 5.0
"""Longer than a session waits where nobody says that it has the step in hand."""


class Slow:
    """Makes a server take `pause_s` for each batch from now on."""

    pause_s = 0.0

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause_s)
        return output


@asynccontextmanager
async def begun(
    ids: list[int], *offers: Offer
) -> AsyncIterator[tuple[Swarm, InferenceSession, list[Notice]]]:
    """A session that has been fed `ids` and thinks soon that nothing moves, and its notices."""
    notices: list[Notice] = []
    async with open_swarm(small_model("llama"), *offers) as swarm:
        async with (await swarm.client()).session() as session:
            await session.feed(ids)
            session.on_notice = notices.append
            patience = session.driver.patience
            patience.stall_s, patience.recover_s = STALL_S, RECOVER_S
            yield swarm, session, notices
        await swarm.check_clean()


async def test_a_step_that_a_server_has_in_hand_is_waited_for() -> None:
    slow, ids = Slow(), prompt(1, 20)
    async with begun(ids[:10], Offer(0, 6, garble=slow)) as (swarm, session, notices):
        slow.pause_s = PAUSE_S
        await session.feed(ids[10:19])
        slow.pause_s = 0.0
        await check_answer(swarm.model, session, ids, 3)
        assert not notices


@pytest.mark.slow
async def test_a_replay_that_takes_long_is_waited_for() -> None:
    slow, ids = Slow(), prompt(2, 1000)
    offers = Offer(0, 6, blocks_per_s=1e6), Offer(0, 6, garble=slow)
    async with begun(ids[:-1], *offers) as (swarm, session, notices):
        assert swarm.path(session) == [swarm.servers[0]]
        slow.pause_s = 1.5  # four batches or more: none is long, all of them are
        swarm.servers[0].kill()
        await check_answer(swarm.model, session, ids, 3)
        assert [notice.kind for notice in notices] == ["lost", "recovered"]
        assert swarm.servers[1].recomputed_tokens == 0


@pytest.mark.slow
async def test_a_bind_is_acknowledged_amid_a_batch_that_takes_longer_than_that_is_waited_for() -> None:
    slow, ids = Slow(), prompt(4, 200)
    offers = Offer(0, 3, garble=slow), Offer(3, 6, blocks_per_s=1e6), Offer(3, 6)
    async with begun(ids[:10], *offers) as (swarm, session, notices):
        first, victim, _ = swarm.servers
        slow.pause_s = ACK_S + 3
        fed = asyncio.create_task(session.feed(ids[10:-1]))
        await until(lambda: first.host.executor.queue_depth, CLEAN_S, "a batch runs")
        await asyncio.sleep(0.3)
        slow.pause_s = 0.0
        victim.kill()
        await fed
        assert [notice.peers for notice in notices if notice.kind == "lost"] == [{victim.peer_id}]
        await check_answer(swarm.model, session, ids, 3)


@pytest.mark.slow
async def test_a_server_whose_computation_hangs_is_left_although_it_beats_and_has_the_step_in_hand() -> None:
    gate, kinds = threading.Event(), list[str]()
    gate.set()

    def hang(output: torch.Tensor) -> torch.Tensor:
        assert gate.wait(60)
        return output

    first, second = Offer(0, 6, blocks_per_s=1e6, garble=hang), Offer(0, 6)
    async with open_swarm(small_model("llama"), first, second) as swarm:
        try:
            async with (await swarm.client()).session() as session:
                session.on_notice = lambda notice: kinds.append(notice.kind)
                ids = prompt(3, 20)
                await session.feed(ids[:10])
                gate.clear()
                await check_answer(swarm.model, session, ids, 3)
                assert swarm.path(session) == [swarm.servers[1]]
                assert kinds == ["lost", "recovered"]
        finally:
            gate.set()
        honest = swarm.servers[1]  # the other one is out of reach and keeps its pages for the lease
        await until(lambda: not honest.pool.pages_in_use, CLEAN_S, "pages are free")
