"""A server that is slow is not lost: what it has in hand is waited for. One that hangs is."""

import threading
import time
from typing import Any

import pytest
import torch

from swarm.inference import InferenceSession
from swarm.patience import Patience
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import CLEAN_S, Offer, open_swarm, until

STALL_S = 2.0
RECOVER_S = 2.5
PAUSE_S = 3.5
"""Longer than a session waits where nobody says that it has the step in hand."""
REPLAY_TOKENS = 1000


class Slow:
    """Makes a server take `pause_s` for each batch from now on."""

    pause_s = 0.0

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause_s)
        return output


def hurried(session: InferenceSession) -> Patience:
    """The clocks of a session that soon thinks that nothing moves."""
    patience = session.driver.patience
    patience.stall_s, patience.recover_s = STALL_S, RECOVER_S
    return patience


async def test_a_step_that_a_server_has_in_hand_is_waited_for() -> None:
    slow, notices = Slow(), list[Any]()
    async with open_swarm(small_model("llama"), Offer(0, 6, garble=slow)) as swarm:
        async with (await swarm.client()).session() as session:
            session.on_notice = notices.append
            hurried(session)
            ids = prompt(1, 20)
            await session.feed(ids[:10])
            slow.pause_s = PAUSE_S
            await session.feed(ids[10:19])
            slow.pause_s = 0.0
            await check_answer(swarm.model, session, ids, 3)
            assert not notices
        await swarm.check_clean()


@pytest.mark.slow
async def test_a_replay_that_takes_long_is_waited_for() -> None:
    slow, kinds = Slow(), list[str]()
    first, second = Offer(0, 6, blocks_per_s=1e6), Offer(0, 6, garble=slow)
    async with open_swarm(small_model("llama"), first, second) as swarm:
        async with (await swarm.client()).session() as session:
            session.on_notice = lambda notice: kinds.append(notice.kind)
            hurried(session)
            ids = prompt(2, REPLAY_TOKENS)
            await session.feed(ids[:-1])
            assert swarm.path(session) == [swarm.servers[0]]
            slow.pause_s = 1.5  # four batches or more: none is long, all of them are
            swarm.servers[0].kill()
            await check_answer(swarm.model, session, ids, 3)
            assert kinds == ["lost", "recovered"]
            assert swarm.servers[1].recomputed_tokens == 0
        await swarm.check_clean()


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
