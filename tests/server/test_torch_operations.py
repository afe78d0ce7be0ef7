"""What a batch costs, counted in torch's own operations: nothing slow comes back unnoticed."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span
from tests.models import make_model

SPAN = Span(0, 6)
COPIES = {
    "copy_",
    "clone",
    "cat",
    "stack",
    "contiguous",
    "_to_copy",
    "index",
    "index_select",
    "gather",
    "repeat",
}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by name, and the bytes that copying ones write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.copied_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with self:  # without autograd, operations made of others arrive whole: take them apart
            output = func.decompose(*args, **(kwargs or {}))
        if output is not NotImplemented:
            return output
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.counts[name] += 1
        if name in COPIES and isinstance(output, Tensor):
            self.copied_bytes += output.nbytes
        return output

    @property
    def matrix_products(self) -> int:
        return self.counts["mm"] + self.counts["addmm"]


@pytest.fixture(scope="module", params=["llama", "qwen3", "bloom"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpanModel:
    path: Path = make_model(tmp_path_factory.mktemp("models"), request.param)
    return SpanModel(load_span(open_checkpoint(str(path)), SPAN), SPAN)


def step(model: SpanModel, pool: KVPool, works: dict[SessionCache, int]) -> Operations:
    """Run `works`, new tokens by cache, as one batch and count its operations."""
    chunks = []
    for cache, tokens in works.items():
        pool.begin_write(cache, cache.used, cache.used + tokens)
        chunks.append(Chunk(cache, cache.span, cache.used, torch.randn(tokens, 64)))
    operations = Operations()
    with operations:
        model.run(chunks)
    return operations


def warm(model: SpanModel, pool: KVPool, tokens: int) -> SessionCache:
    """Return a session with `tokens` cached and room for a few more."""
    cache = pool.open(SPAN)
    step(model, pool, {cache: tokens})
    step(model, pool, {cache: 1})
    return cache


def test_linear_layers_run_once_per_batch_whatever_the_number_of_sessions(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    alone = step(model, pool, {pool.open(SPAN): 1})
    many = step(model, pool, {pool.open(SPAN): 1 + number % 3 for number in range(12)})
    linear_layers = sum(isinstance(module, torch.nn.Linear) for module in model.model.modules())
    assert alone.matrix_products == many.matrix_products == linear_layers


def test_every_block_that_has_run_is_seen_while_the_batch_runs(model: SpanModel) -> None:
    seen = []
    hook = model.own_block(3).register_forward_pre_hook(lambda *_: seen.append(model.progress))
    before, pool = model.progress, KVPool(1_000_000)
    try:
        step(model, pool, {pool.open(SPAN): 3})
    finally:
        hook.remove()
    assert (seen[0] - before, model.progress - before) == (3, len(SPAN))


def test_a_decode_step_copies_no_old_keys_and_values(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    steps = [step(model, pool, {warm(model, pool, tokens): 1}) for tokens in (20, 300, 900)]
    assert steps[0].copied_bytes == steps[1].copied_bytes == steps[2].copied_bytes
    assert steps[1].counts == steps[2].counts


def test_a_decode_step_of_a_fork_copies_no_shared_keys_and_values(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    forks = []
    for tokens in (32, 608):
        parent = warm(model, pool, tokens)
        child = pool.fork(parent, tokens)
        assert child is not None
        step(model, pool, {child: 1})
        forks.append(step(model, pool, {child: 1}))
    assert forks[0].copied_bytes == forks[1].copied_bytes


def test_forks_of_one_prompt_attend_to_it_once_per_layer(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    parent = warm(model, pool, 64)
    forks = [pool.fork(parent, 64) for _ in range(7)]
    found = step(model, pool, {fork: 1 for fork in forks if fork is not None})
    times = found.counts["_scaled_dot_product_flash_attention_for_cpu"]
    has_bias = model.model.config.model_type == "bloom"
    assert times == (7 + 7 if has_bias else 1 + 7) * len(SPAN)


def test_an_extent_grows_so_rarely_that_old_tokens_are_copied_a_few_times_at_most(model: SpanModel) -> None:
    pool = KVPool(1_000_000)
    cache = pool.open(SPAN)
    moves, last = 0, None
    for _ in range(600):
        pool.begin_write(cache, cache.used, cache.used + 1)
        for layer in range(len(SPAN)):
            cache.write(layer, cache.used, torch.zeros(2, 1, 8), torch.zeros(2, 1, 8))
        cache.used += 1
        moves += cache.layers[0] is not last
        last = cache.layers[0]
    assert moves <= 9
