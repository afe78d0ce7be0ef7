"""Decode steps that are replayed from CUDA graphs give what the same steps give kernel by kernel."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from server.attention import Chunk
from server.executor import Executor
from server.graphs import MAX_ROWS, SEEN_BEFORE, can_replay, is_same, padded_rows, padded_splits
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel
from server.work import Work
from swarm.wire.blocks import PeerId, Span
from tests.models import make_model
from tests.server.test_devices import EACH, SPAN, load

HIDDEN = 64
ROUNDS = SEEN_BEFORE + 5
REPLAYED = {"llama"}


def test_graphs_are_few_for_all_numbers_of_sessions_and_lengths() -> None:
    assert [padded_rows(rows) for rows in (1, 2, 3, 4, 5, 33, 64)] == [1, 2, 4, 4, 8, 64, 64]
    assert [padded_splits(splits) for splits in (1, 2, 4, 5, 16, 17, 65)] == [1, 4, 4, 16, 16, 64, 256]


def chunk(pool: KVPool, tokens: int = 1, span: Span = SPAN, *, is_long: bool = False) -> Chunk:
    return Chunk(pool.open(span), span, 0, torch.zeros(tokens, HIDDEN), is_long)


def test_only_single_tokens_that_pass_all_blocks_are_replayed() -> None:
    pool = KVPool(10_000)
    one = chunk(pool)
    assert can_replay([one] * MAX_ROWS, SPAN)
    assert not can_replay([one] * (MAX_ROWS + 1), SPAN)
    for other in (chunk(pool, 2), chunk(pool, span=Span(1, 3)), chunk(pool, is_long=True)):
        assert not can_replay([one, other], SPAN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_is_believed_if_its_rows_are_those_of_the_forward_but_for_rounding(
    dtype: torch.dtype,
) -> None:
    expected = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert is_same(expected.clone(), expected)
    assert is_same(expected * (1 + 2 * torch.finfo(dtype).eps), expected)
    assert is_same(expected.roll(1, 0), expected) is False
    assert is_same(expected * torch.nan, expected) is False


def test_no_row_hides_what_is_wrong_in_others_and_none_condemns_them() -> None:
    expected = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(1))
    expected[1, 5], wrong = 1e30, expected + 0.1
    assert is_same(wrong, expected) is False
    for poison in (torch.nan, torch.inf):
        expected[1, 5] = poison
        assert is_same(expected.clone(), expected)
    assert is_same(expected[1:2].clone(), expected[1:2]) is None


def test_on_a_cpu_nothing_is_captured(tmp_path: Path) -> None:
    model = load(make_model(tmp_path, "llama"))
    decode(model)
    assert not model.graphs.replays


def decode(model: SpanModel) -> list[torch.Tensor]:
    """Steps of one to three sessions, one of them a fork, until their extents have moved."""
    pool, random = KVPool(100_000), torch.Generator().manual_seed(3)

    def step(tokens: dict[SessionCache, int]) -> list[torch.Tensor]:
        chunks = []
        for cache, count in tokens.items():
            pool.begin_write(cache, cache.used, cache.used + count)
            chunks.append(Chunk(cache, SPAN, cache.used, torch.randn(count, HIDDEN, generator=random)))
        return model.run(chunks)

    first, second = pool.open(SPAN), pool.open(SPAN)
    outputs = step({first: 28, second: 3})
    fork = pool.fork(first, 20)
    assert fork is not None
    for _ in range(ROUNDS):
        outputs += step({first: 1})
        outputs += step({second: 1, fork: 1, first: 1})
    return outputs


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "overrides"), EACH)
def test_replayed_steps_equal_eager_ones(family: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    path = make_model(tmp_path, family, **overrides)
    model, eager = load(path, "cuda"), load(path, "cuda")
    eager.graphs.turn_off("they are what it is compared with")
    for output, same in zip(decode(model), decode(eager), strict=True):
        torch.testing.assert_close(output, same, atol=1e-5, rtol=1e-5)
    if family in REPLAYED:
        assert model.graphs.replays == 2 * (ROUNDS - SEEN_BEFORE)


@pytest.mark.gpu
async def test_spans_of_one_process_are_captured_without_harm_to_each_other(tmp_path: Path) -> None:
    path = make_model(tmp_path, "llama")
    models = [load(path, "cuda") for _ in range(4)]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for model in models:
            pool = KVPool(100_000)
            executor = await stack.enter_async_context(Executor(model, pool))
            tasks.create_task(decode_more_and_more(executor, pool))
    assert all(model.graphs.replays for model in models)


async def decode_more_and_more(executor: Executor, pool: KVPool) -> None:
    """Steps of one session, of two, and so on, so that something is captured again and again."""
    caches = [pool.open(SPAN) for _ in range(9)]
    for count in range(1, len(caches)):
        for _ in range(ROUNDS):
            async with asyncio.TaskGroup() as steps:
                for cache in caches[:count]:
                    hidden = torch.randn(1, HIDDEN)
                    steps.create_task(executor.run(Work(cache, SPAN, cache.used, hidden, PeerId("peer"))))
