"""What the compute thread remembers from turn to turn, and what it must not learn from."""

import asyncio
import time

import pytest
import torch

from server.batch_cost import MIN_SEEN
from server.kv_cache import KVPool, SessionCache
from server.scheduler import Limits, Share
from server.turns import Turns
from server.work import Job, Work
from swarm.wire.blocks import PeerId, Span

WHOLE, HALF = Span(0, 8), Span(2, 6)
A, B = PeerId("a"), PeerId("b")


class Thread:
    """Turns, and works as they come; a batch takes 4.5 ms, and half a millisecond with each row."""

    def __init__(self) -> None:
        self.turns, self._pool = Turns(Limits()), KVPool(1_000_000)

    def job(self, peer: PeerId, tokens: int = 1, span: Span = WHOLE) -> Job:
        return self.step(self._pool.open(span), peer, tokens)

    def step(self, cache: SessionCache, peer: PeerId = B, tokens: int = 1) -> Job:
        work = Work(cache, cache.span, 0, torch.zeros(tokens, 4), peer, session=id(cache))
        return self.turns.job(work, asyncio.get_running_loop().create_future())

    def run(self, *jobs: Job, slower: float = 1.0, is_one_batch: bool = True) -> None:
        rows = sum(job.left_tokens for job in jobs)
        share_of_blocks = max(job.num_blocks for job in jobs) / len(WHOLE)
        began_s = time.monotonic() - slower * share_of_blocks * (0.0045 + 0.0005 * rows)
        batch = [(job, Share(0, job.work.peer, job.left_tokens, job.is_prompt)) for job in jobs]
        self.turns.ran(batch, began_s, is_one_batch=is_one_batch)

    def learn(self, span: Span = WHOLE) -> None:
        for size in (1, 120) * MIN_SEEN:
            self.run(*(self.job(A, span=span) for _ in range(size)))

    def planned(self, *jobs: Job) -> int:
        return len(self.turns.plan(dict(enumerate(jobs))))

    def planned_beside_one(self, span: Span = WHOLE) -> int:
        """How many of a crowd's sessions run beside one of somebody else."""
        return self.planned(self.job(B, span=span), *(self.job(A, span=span) for _ in range(100))) - 1


async def test_a_crowd_has_what_batches_are_seen_to_cost() -> None:
    thread = Thread()
    thread.learn()
    assert 11 <= thread.planned_beside_one() <= 13


async def test_what_ran_one_by_one_or_failed_tells_nothing() -> None:
    thread = Thread()
    thread.learn()
    for _ in range(5):
        thread.run(*(thread.job(A) for _ in range(120)), slower=0.1, is_one_batch=False)
    assert 11 <= thread.planned_beside_one() <= 13


async def test_batches_through_a_part_of_the_blocks_tell_as_much() -> None:
    thread = Thread()
    thread.run(thread.job(A))
    thread.learn(HALF)
    assert 11 <= thread.planned_beside_one() <= 13
    assert 11 <= thread.planned_beside_one(HALF) <= 13


async def test_what_fewer_blocks_have_told_is_forgotten_once_there_are_more() -> None:
    thread = Thread()
    thread.learn(HALF)
    thread.run(thread.job(A))
    assert thread.planned_beside_one() > 30


async def test_prompts_wait_until_it_is_known_what_the_rows_beside_them_cost_and_no_longer() -> None:
    thread = Thread()
    row, prompt = thread.job(A), thread.job(B, 1000)
    planned = [thread.planned(row, prompt) for _ in range(MIN_SEEN + 2)]  # and nothing ever runs
    assert planned == [1] * MIN_SEEN + [2, 2]
    for _ in range(MIN_SEEN):
        thread.run(row)
    assert thread.planned(row, prompt) == 2


async def test_each_size_of_a_batch_is_measured_alone_however_they_take_turns() -> None:
    thread = Thread()
    few, many, prompt = [thread.job(A)], [thread.job(A) for _ in range(9)], thread.job(B, 1000)
    for rows in [few, many] * MIN_SEEN:
        assert thread.planned(*rows, prompt) == len(rows)
        thread.run(*rows)
    assert thread.planned(*few, prompt) == 2
    assert thread.planned(*many, prompt) == 10


@pytest.mark.parametrize("is_mixed", [False, True])
async def test_a_prompt_waits_a_moment_for_those_who_decode_and_never_for_nobody(is_mixed: bool) -> None:
    thread, cache = Thread(), KVPool(1000).open(WHOLE)
    prompt, other = thread.job(A, 1000), thread.job(B, 1000)
    for _ in range(2):
        thread.run(other)
    assert thread.turns.patience_s([prompt], 0.0) == 0.0
    for _ in range(2):  # it is back at once
        thread.run(thread.step(cache), *[other] * is_mixed, slower=10)
    assert thread.turns.patience_s([prompt], 0.0) > 0.0
    assert thread.turns.patience_s([prompt, thread.step(cache)], 0.0) == 0.0
    await asyncio.sleep(0.05)
    assert thread.turns.patience_s([prompt], 0.0) == 0.0


async def test_a_prompt_does_not_wait_for_other_prompts() -> None:
    thread = Thread()
    prompt, other, row = thread.job(A, 1000), thread.job(B, 1000), thread.job(A)
    for _ in range(2):
        thread.run(row, other, slower=10)
    assert thread.turns.patience_s([prompt, row], 0.0) == 0.0
