"""A model that is not on the CPU: nothing that meets its tensors may be made elsewhere.

Without a GPU the tables are turned: the model stays on the CPU, and `meta`, which holds no numbers, is where
torch puts whatever is made without naming a device. One such tensor ends the run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from server.attention import Chunk
from server.attention_kernels import Options, Rows, Visible, attend_sessions
from server.block_loader import load_span
from server.kv_cache import KVPool
from server.kv_spill import SpillStore
from server.span import SpanModel
from server.verify import verify_span
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span
from tests.models import EVERY_FAMILY, make_model

SPAN = Span(0, 6)
CUDA = torch.device("cuda")
WINDOW = {"sliding_window": 4}
QUICK: dict[str, dict[str, Any]] = {"llama": {}, "bloom": {}, "mistral": WINDOW}
# GPT-2's positions are the client's: on a server they are a number that is made on the CPU, and moved.
EACH = [
    pytest.param(name, QUICK.get(name, {}), id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name in EVERY_FAMILY
    if name != "gpt2"
]
Run = Callable[[], list[torch.Tensor]]


def load(
    path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, quantization: str = "none"
) -> SpanModel:
    checkpoint = open_checkpoint(str(path))
    loaded = load_span(checkpoint, SPAN, dtype=dtype, device=torch.device(device), quantization=quantization)
    return SpanModel(loaded, SPAN)


def run_of(model: SpanModel) -> Run:
    """Prompts, later chunks, decodes behind a shared prefix and beside a prompt, rows that pass only
    some blocks."""
    pool, hidden = KVPool(10_000), torch.randn(60, 64, generator=torch.Generator().manual_seed(1))

    def run() -> list[torch.Tensor]:
        parent, partial = pool.open(SPAN), pool.open(Span(1, 3))
        outputs = []
        for position, end in ((0, 33), (33, 40)):
            chunks = [Chunk(cache, cache.span, position, hidden[position:end]) for cache in (parent, partial)]
            for chunk in chunks:
                pool.begin_write(chunk.cache, position, end)
            outputs += model.run(chunks)
        forks = [fork for _ in range(2) if (fork := pool.fork(parent, 40))]
        for fork in forks:
            pool.begin_write(fork, 40, 41)
        outputs += model.run([Chunk(fork, SPAN, 40, hidden[40:41]) for fork in forks])
        late = pool.open(SPAN)
        for cache, position, end in ((forks[0], 41, 42), (late, 0, 5), (partial, 40, 41)):
            pool.begin_write(cache, position, end)
        outputs += model.run(
            [
                Chunk(forks[0], SPAN, 41, hidden[41:42]),
                Chunk(late, SPAN, 0, hidden[:5]),
                Chunk(partial, partial.span, 40, hidden[40:41]),
            ]
        )
        for cache in (parent, partial, late, *forks):
            pool.close(cache)
        return outputs

    return run


@pytest.mark.parametrize(("family", "overrides"), EACH)
def test_a_span_makes_nothing_away_from_its_own_device(
    family: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    run = run_of(load(make_model(tmp_path, family, **overrides)))
    expected = run()
    with torch.device("meta"):
        outputs = run()
    for output, same in zip(outputs, expected, strict=True):
        assert torch.equal(output, same)


class CpuKernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers which operations that only a CPU knows were called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.called: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if "for_cpu" in str(func):
            self.called.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("sinks", [None, torch.zeros(4, device="meta")], ids=["plain", "sinks"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_attention_behind_a_prefix_calls_no_kernel_of_the_cpu_elsewhere(
    sinks: torch.Tensor | None, tokens: int
) -> None:
    shared, own = (
        (torch.empty(2, count, 8, device="meta"), torch.empty(2, count, 8, device="meta"))
        for count in (32, tokens)
    )
    rows = Rows(torch.empty(4, tokens, 8, device="meta"), (shared, own), Visible(0, None, is_causal=False))
    with CpuKernels() as kernels:
        outputs = attend_sessions([rows, rows], Options(0.3, sinks=sinks))
    assert [(output.shape, output.device.type) for output in outputs] == [((tokens, 4, 8), "meta")] * 2
    assert not kernels.called


def test_spilled_pages_pass_through_the_hosts_memory(tmp_path: Path) -> None:
    pair = (torch.randn(2, 16, 8), torch.randn(2, 16, 4).bfloat16())
    spilled = SpillStore(1 << 20, tmp_path).write([pair])
    assert spilled is not None
    with torch.device("meta"):
        (found,) = spilled.read()
    spilled.close()
    assert found is not None
    assert all(map(torch.equal, found, pair))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "bloom"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_span_on_a_gpu_equals_transformers_there(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    verify_span(load(make_model(tmp_path, family), "cuda", dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "bloom", "mistral"])
def test_a_span_on_a_gpu_equals_one_on_the_cpu(family: str, tmp_path: Path) -> None:
    overrides: dict[str, Any] = WINDOW if family == "mistral" else {}
    path = make_model(tmp_path, family, **overrides)
    for output, same in zip(run_of(load(path, "cuda"))(), run_of(load(path))(), strict=True):
        torch.testing.assert_close(output, same, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantized_blocks_on_a_gpu_are_as_near_to_full_ones_as_on_the_cpu(kind: str, tmp_path: Path) -> None:
    path = make_model(tmp_path, "llama")
    full, here, there = (
        torch.cat(run_of(model)()).float()
        for model in (load(path), load(path, quantization=kind), load(path, "cuda", quantization=kind))
    )
    assert not torch.equal(there, full)
    assert (there - full).norm() < 1.1 * (here - full).norm()
    assert (there - here).norm() < (here - full).norm(), "they do not round alike"


@pytest.mark.gpu
def test_a_gpus_spilled_pages_come_back_to_it_bit_for_bit(tmp_path: Path) -> None:
    pool = KVPool(1024, spill_to=SpillStore(1 << 20, tmp_path))
    cache = pool.open(Span(0, 1))
    pair = (torch.randn(2, 20, 8, device=CUDA), torch.randn(2, 20, 8, device=CUDA))
    pool.begin_write(cache, 0, 20)
    cache.write(0, 0, *pair)
    cache.used = 20
    assert pool.spill(cache)
    assert pool.restore(cache)
    (found,) = pool.export_pages(cache, 20)
    assert found[0].device.type == "cuda"
    assert all(map(torch.equal, found, pair))
