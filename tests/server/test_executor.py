"""The compute thread around a fake model: what runs together, who waits, whose failure it is."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from server.attention import Chunk
from server.block_loader import load_span
from server.executor import Executor
from server.kv_cache import KVFull, KVPool, SessionCache
from server.overloaded import Overloaded
from server.scheduler import Limits
from server.span import SpanModel
from server.work import Work
from swarm.checkpoint import open_checkpoint
from swarm.errors import ContextTooLong
from swarm.wire.blocks import PeerId, Span
from tests.models import make_model

SPAN = Span(0, 2)
ALICE, BOB = PeerId("alice"), PeerId("bob")


class FakeRunner:
    """Adds 1 to hidden states, a batch at a time; `gate` holds back the next batch."""

    hidden_size = 4
    max_positions: int | None = 10_000
    progress = 0

    def __init__(self, turn: AbstractContextManager[object] | None = None) -> None:
        self.turn = turn
        self.batches: list[list[tuple[int, int]]] = []
        """(position, tokens) of each chunk, batch by batch."""
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.answers_too_few = False
        self.error: Exception | None = None

    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([(chunk.position, chunk.hidden.shape[0]) for chunk in chunks])
        if any(chunk.hidden.isnan().any() for chunk in chunks):
            raise ArithmeticError("poisoned")
        if self.error is not None:
            raise self.error
        if self.answers_too_few:
            return []
        for chunk in chunks:
            chunk.cache.used = chunk.end
        return [chunk.hidden + 1 for chunk in chunks]

    async def hold(self) -> None:
        """Wait until a batch is in the runner, which `gate` must be holding back."""
        await asyncio.to_thread(self.entered.wait, 10)
        self.entered.clear()


class Fake:
    """An executor around a fake runner, and shorthands."""

    def __init__(self, executor: Executor, runner: FakeRunner, pool: KVPool) -> None:
        self.executor, self.runner, self.pool = executor, runner, pool

    def work(
        self, cache: SessionCache, tokens: int, peer: PeerId = ALICE, position: int | None = None
    ) -> Work:
        at = cache.used if position is None else position
        return Work(cache, SPAN, at, torch.full((tokens, 4), float(at)), peer, session=id(cache))

    def start(self, work: Work) -> asyncio.Task[Tensor]:
        return asyncio.create_task(self.executor.run(work))


@asynccontextmanager
async def open_fake(**settings: int) -> AsyncIterator[Fake]:
    runner, pool = FakeRunner(), KVPool(100_000)
    limits = Limits(short_tokens=4, batch_tokens=64, prompt_tokens=32)
    try:
        async with Executor(runner, pool, limits=limits, **settings) as executor:
            yield Fake(executor, runner, pool)
    finally:
        runner.gate.set()


async def test_a_work_comes_back_with_its_outputs() -> None:
    async with open_fake() as fake:
        cache = fake.pool.open(SPAN)
        output = await fake.executor.run(fake.work(cache, 3))
        assert torch.equal(output, torch.ones(3, 4))
        assert (cache.used, fake.executor.progress, fake.executor.queue_depth) == (3, 1, 0)


async def test_executors_that_share_a_device_use_it_one_at_a_time() -> None:
    turn, pool = threading.Lock(), KVPool(100_000)
    first, second = FakeRunner(turn), FakeRunner(turn)
    async with Executor(first, pool) as one, Executor(second, pool) as other:
        works = [Work(pool.open(SPAN), SPAN, 0, torch.zeros(1, 4), ALICE) for _ in range(3)]
        first.gate.clear()
        running = asyncio.create_task(one.run(works[0]))
        await first.hold()
        waiting = [asyncio.create_task(other.run(works[1])), asyncio.create_task(other.call(lambda: 5))]
        await asyncio.sleep(0.05)
        assert not second.entered.is_set()
        assert not any(task.done() for task in waiting)
        waiting.append(asyncio.create_task(other.run(works[2])))  # it takes part, for the batch has not begun
        await asyncio.sleep(0.05)
        first.gate.set()
        for task in (running, *waiting):
            await task
    assert second.batches == [[(0, 1), (0, 1)]]


async def test_a_long_batch_shows_that_it_moves() -> None:
    async with open_fake() as fake:
        fake.runner.gate.clear()
        running = fake.start(fake.work(fake.pool.open(SPAN), 1))
        await fake.runner.hold()
        before = fake.executor.progress
        fake.runner.progress += 1
        assert fake.executor.progress == before + 1
        fake.runner.gate.set()
        await running


async def test_works_that_wait_run_as_one_batch() -> None:
    async with open_fake() as fake:
        caches = [fake.pool.open(SPAN) for _ in range(6)]
        fake.runner.gate.clear()
        first = fake.start(fake.work(caches[0], 1))
        await fake.runner.hold()
        others = [fake.start(fake.work(cache, 1)) for cache in caches[1:]]
        await asyncio.sleep(0)
        assert fake.executor.queue_depth == 6
        fake.runner.gate.set()
        for task in (first, *others):
            await task
        assert [len(batch) for batch in fake.runner.batches] == [1, 5]


async def run_together(fake: Fake, caches: Sequence[SessionCache]) -> None:
    """A batch of all that takes 60 ms."""
    fake.runner.gate.clear()
    fake.runner.entered.clear()
    tasks = [fake.start(fake.work(caches[0], 1))]
    await fake.runner.hold()
    tasks += [fake.start(fake.work(cache, 1)) for cache in caches[1:]]
    await asyncio.sleep(0.06)
    fake.runner.gate.set()
    for task in tasks:
        await task


async def test_sessions_that_left_a_moment_ago_run_together_again_although_one_comes_first() -> None:
    async with open_fake() as fake:
        caches, sizes = [fake.pool.open(SPAN) for _ in range(2)], []
        for _ in range(5):  # on a busy machine the second one may be late
            await run_together(fake, caches)
            first = fake.start(fake.work(caches[0], 1))
            await asyncio.sleep(0.001)
            await fake.executor.run(fake.work(caches[1], 1))
            await first
            sizes.append(len(fake.runner.batches[-1]))
        assert max(sizes) == 2


async def test_a_long_prompt_is_cut_and_others_decode_between_its_chunks() -> None:
    async with open_fake() as fake:
        long, short = fake.pool.open(SPAN), fake.pool.open(SPAN)
        fake.runner.gate.clear()
        prompt = fake.start(fake.work(long, 100, BOB))
        await fake.runner.hold()
        decode = fake.start(fake.work(short, 1))
        await asyncio.sleep(0)
        fake.runner.gate.set()
        await decode
        output = await prompt
        assert output.shape == (100, 4)
        assert fake.runner.batches[0] == [(0, 32)]
        assert fake.runner.batches[1][0] == (0, 1)
        chunks = [chunk for batch in fake.runner.batches for chunk in batch if chunk != (0, 1)]
        assert chunks == [(0, 32), (32, 32), (64, 32), (96, 4)]


async def test_each_token_of_a_work_that_is_cut_keeps_its_place() -> None:
    async with open_fake() as fake:
        hidden = torch.arange(400.0).view(100, 4)
        work = Work(fake.pool.open(SPAN), SPAN, 0, hidden, ALICE)
        assert torch.equal(await fake.executor.run(work), hidden + 1)
        assert len(fake.runner.batches) == 4


async def test_prompts_of_two_peers_take_turns() -> None:
    async with open_fake() as fake:
        fake.runner.gate.clear()
        tasks = [fake.start(fake.work(fake.pool.open(SPAN), 64, peer)) for peer in (ALICE, ALICE, BOB)]
        await fake.runner.hold()
        fake.runner.gate.set()
        finished = [task async for task in in_order_of_completion(tasks)]
        assert finished.index(tasks[2]) < 2, "bob's prompt waited for both of alice's"


async def in_order_of_completion(tasks: list[asyncio.Task[Tensor]]) -> AsyncIterator[asyncio.Task[Tensor]]:
    order: list[asyncio.Task[Tensor]] = []
    for task in tasks:
        task.add_done_callback(order.append)
    for task in tasks:
        await task
    await asyncio.sleep(0)
    for task in order:
        yield task


async def test_a_cancelled_caller_is_skipped_and_others_are_answered() -> None:
    async with open_fake() as fake:
        caches = [fake.pool.open(SPAN) for _ in range(3)]
        fake.runner.gate.clear()
        first = fake.start(fake.work(caches[0], 1))
        await fake.runner.hold()
        cancelled, kept = fake.start(fake.work(caches[1], 2)), fake.start(fake.work(caches[2], 3))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        fake.runner.gate.set()
        await first
        await kept
        assert fake.runner.batches == [[(0, 1)], [(0, 3)]]
        assert fake.executor.queue_depth == 0


async def test_closing_a_cache_fails_the_work_that_waits_for_it() -> None:
    async with open_fake() as fake:
        caches = [fake.pool.open(SPAN) for _ in range(3)]
        fake.runner.gate.clear()
        first = fake.start(fake.work(caches[0], 1))
        await fake.runner.hold()
        closed, kept = fake.start(fake.work(caches[1], 1)), fake.start(fake.work(caches[2], 1))
        await asyncio.sleep(0)
        fake.pool.close(caches[1])
        fake.runner.gate.set()
        await first
        await kept
        with pytest.raises(ValueError, match="closed while its step waited"):
            await closed
        assert [len(batch) for batch in fake.runner.batches] == [1, 1]


async def test_what_nobody_waits_for_fails_before_its_next_batch_and_its_cache_is_as_it_was() -> None:
    async with open_fake() as fake:
        gone, kept = fake.pool.open(SPAN), fake.pool.open(SPAN)
        fake.runner.gate.clear()
        prompt = fake.start(fake.work(gone, 100))
        await fake.runner.hold()
        other = fake.start(fake.work(kept, 1))
        await asyncio.sleep(0)
        fake.executor.forget({gone})
        fake.runner.gate.set()
        with pytest.raises(Overloaded, match="nobody waits"):
            await prompt
        await other
        assert fake.runner.batches == [[(0, 32)], [(0, 1)]]
        await fake.executor.run(fake.work(gone, 2, position=0))
        assert fake.runner.batches[-1] == [(0, 2)]


async def test_a_bug_in_the_loop_fails_those_who_wait_and_refuses_those_who_come() -> None:
    async with open_fake() as fake:
        fake.runner.answers_too_few = True
        with pytest.raises(ValueError, match="zip"):
            await fake.executor.run(fake.work(fake.pool.open(SPAN), 1))
        with pytest.raises(Overloaded):
            await fake.executor.run(fake.work(fake.pool.open(SPAN), 1))


async def test_only_the_guilty_work_of_a_batch_fails() -> None:
    async with open_fake() as fake:
        caches = [fake.pool.open(SPAN) for _ in range(3)]
        poisoned = Work(caches[1], SPAN, 0, torch.full((1, 4), torch.nan), BOB)
        fake.runner.gate.clear()
        first = fake.start(fake.work(caches[0], 1))
        await fake.runner.hold()
        bad, good = fake.start(poisoned), fake.start(fake.work(caches[2], 1))
        await asyncio.sleep(0)
        fake.runner.gate.set()
        await first
        assert torch.equal(await good, torch.ones(1, 4))
        with pytest.raises(ArithmeticError, match="poisoned"):
            await bad
        assert caches[1].used == 0
        assert torch.equal(await fake.executor.run(fake.work(caches[1], 1)), torch.ones(1, 4))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        MemoryError(),
    ],
)
async def test_a_step_for_which_memory_is_short_is_told_to_come_again(error: Exception) -> None:
    async with open_fake() as fake:
        cache = fake.pool.open(SPAN)
        fake.runner.error = error
        with pytest.raises(Overloaded, match="short of memory"):
            await fake.executor.run(fake.work(cache, 1))
        fake.runner.error = None
        assert torch.equal(await fake.executor.run(fake.work(cache, 1)), torch.ones(1, 4))


async def test_works_of_one_cache_run_in_their_order_never_together() -> None:
    async with open_fake() as fake:
        cache = fake.pool.open(SPAN)
        fake.pool.reserve(cache, 100)
        tasks = [fake.start(fake.work(cache, 40, position=0)), fake.start(fake.work(cache, 1, position=0))]
        for task in tasks:
            await task
        assert fake.runner.batches == [[(0, 32)], [(32, 8)], [(0, 1)]]


async def test_a_step_without_tokens_only_rolls_back() -> None:
    async with open_fake() as fake:
        cache = fake.pool.open(SPAN)
        await fake.executor.run(fake.work(cache, 9))
        output = await fake.executor.run(fake.work(cache, 0, position=4))
        assert (output.shape, cache.used, len(fake.runner.batches)) == ((0, 4), 4, 1)


async def test_a_call_runs_on_the_compute_thread_between_batches() -> None:
    async with open_fake() as fake:
        names = [await fake.executor.call(lambda: threading.current_thread().name) for _ in range(2)]
        assert names == ["murmur-compute"] * 2
        with pytest.raises(ZeroDivisionError):
            await fake.executor.call(lambda: 1 // 0)


async def test_what_cannot_run_is_refused_at_once() -> None:
    async with open_fake(max_waiting=1) as fake:
        cache = fake.pool.open(SPAN)
        with pytest.raises(ValueError, match="above the 0 cached"):
            await fake.executor.run(fake.work(cache, 1, position=3))
        with pytest.raises(ValueError, match="span of its cache"):
            await fake.executor.run(Work(cache, Span(0, 1), 0, torch.ones(1, 4), ALICE))
        with pytest.raises(ValueError, match="not 4"):
            await fake.executor.run(Work(cache, SPAN, 0, torch.ones(1, 5), ALICE))
        with pytest.raises(ContextTooLong):
            await fake.executor.run(fake.work(cache, 10_001))
        full = fake.pool.open(SPAN)
        assert fake.pool.reserve(full, 49_900)
        with pytest.raises(KVFull):
            await fake.executor.run(fake.work(cache, 999))
        fake.pool.close(full)
        fake.runner.gate.clear()
        waiting = fake.start(fake.work(cache, 1))
        await fake.runner.hold()
        with pytest.raises(Overloaded):
            await fake.executor.run(fake.work(fake.pool.open(SPAN), 1))
        fake.runner.gate.set()
        await waiting


async def test_leaving_fails_those_who_still_wait() -> None:
    async with open_fake() as fake:
        fake.runner.gate.clear()
        running = fake.start(fake.work(fake.pool.open(SPAN), 1))
        await fake.runner.hold()
        waiting = fake.start(fake.work(fake.pool.open(SPAN), 1))
        calling = asyncio.create_task(fake.executor.call(int))
        await asyncio.sleep(0)
        leaving = asyncio.create_task(fake.executor.__aexit__(None, None, None))
        await asyncio.sleep(0)
        fake.runner.gate.set()
        await leaving
        await running
        for task in (waiting, calling):
            with pytest.raises(Overloaded, match="stopping"):
                await task
        with pytest.raises(Overloaded, match="stopped"):
            await fake.executor.call(int)


@pytest.mark.parametrize("num_sessions", [1, 5])
async def test_many_sessions_on_a_real_span_equal_each_alone(num_sessions: int, tmp_path: Path) -> None:
    span = Span(1, 4)
    checkpoint = open_checkpoint(str(make_model(tmp_path, "llama")))
    model, alone = (SpanModel(load_span(checkpoint, span), span) for _ in range(2))
    pool = KVPool(100_000)
    hidden = [torch.randn(40 + 30 * number, 64) for number in range(num_sessions)]
    async with Executor(model, pool, limits=Limits(prompt_tokens=48)) as executor:

        async def session(states: Tensor, peer: str) -> Tensor:
            cache = pool.open(span)
            outputs = [await executor.run(Work(cache, span, 0, states[:-6], PeerId(peer)))]
            for row in states[-6:]:
                outputs.append(await executor.run(Work(cache, span, cache.used, row[None], PeerId(peer))))
            pool.close(cache)
            return torch.cat(outputs)

        tasks = [asyncio.create_task(session(states, f"p{i % 2}")) for i, states in enumerate(hidden)]
        outputs = [await task for task in tasks]
    for states, output in zip(hidden, outputs, strict=True):
        cache = pool.open(span)
        pool.begin_write(cache, 0, len(states))
        (expected,) = alone.run([Chunk(cache, span, 0, states)])
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)
        pool.close(cache)
    assert pool.pages_in_use == 0
