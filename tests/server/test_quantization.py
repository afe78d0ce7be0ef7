"""Blocks that are quantized while they are loaded: whether they run, what they take, what stays as it is."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaAttention

from bench.quantization import held_bytes
from server.attention import ATTENTION
from server.block_loader import block_size, load_span
from server.quantization import is_quantized, quantize
from server.quantized_experts import QuantizedExperts
from server.span import SpanModel, find_blocks
from server.verify import _stock, verify_span
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.prequantized import Int8Matrix, Nf4Matrix
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.models import make_config, make_model, random_base

SPAN = Span(0, 2)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-wide": ("llama", {"hidden_size": 256, "intermediate_size": 512}),  # as the fused kernel wants it
    "qwen3": ("qwen3", {}),
    "bloom": ("bloom", {}),
    "gemma3": ("gemma3", {}),
    "falcon": ("falcon", {}),
    "mixtral": ("mixtral", {}),
    "gpt-oss": ("gpt-oss", {"hidden_size": 128}),
    "qwen3-moe": ("qwen3-moe", {}),
    "deepseek-v3": ("deepseek-v3", {}),
    "glm4-moe": ("glm4-moe", {}),
    "gpt2": ("gpt2", {}),
}
EXPERTS = ("gpt-oss", "mixtral", "qwen3-moe")
KINDS = ("int8", "nf4")
ERRORS = {"int8": 0.05, "nf4": 0.4}
"""Of the median token, as a share of its length. Weights drawn at random, as wide as these, make the most of
every rounding; trained ones lose less, see docs/quantization.md."""


SLOW = {"qwen3", "qwen3-moe", "deepseek-v3", "glm4-moe", "gpt2"}  # little that no other family has


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES],
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    family, overrides = FAMILIES[request.param]
    return open_checkpoint(str(make_model(tmp_path_factory.mktemp("models"), family, **overrides)))


def run(base: Any, checkpoint: Checkpoint) -> torch.Tensor:
    """Run random hidden states through a base model; [tokens, hidden]."""
    hidden = torch.randn(1, 9, checkpoint.hidden_size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        output: torch.Tensor = base(inputs_embeds=hidden.to(base.config.dtype), use_cache=False)[0].float()
    return output[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_block_answers_nearly_what_the_full_one_answers(
    checkpoint: Checkpoint, kind: str
) -> None:
    block = Span(0, 1)
    full = run(load_span(checkpoint, block, dtype="fp32"), checkpoint)
    quantized = run(load_span(checkpoint, block, dtype="fp32", quantization=kind), checkpoint)
    errors = (quantized - full).norm(dim=-1) / full.norm(dim=-1)
    assert 1e-5 < errors.median() < ERRORS[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_family_passes_the_comparison_at_the_start(
    checkpoint: Checkpoint, kind: str, dtype: str
) -> None:
    model = SpanModel(load_span(checkpoint, SPAN, dtype=dtype, quantization=kind), SPAN)
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    verify_span(model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_block_takes_what_is_announced_within_5_percent(
    checkpoint: Checkpoint, kind: str, dtype: str
) -> None:
    span = Span(4, 6)  # the first blocks of some families are smaller
    load = partial(load_span, checkpoint, span, dtype=dtype, quantization=kind)
    run(load(), checkpoint)  # makes tables that libraries keep from their first use
    base, taken = held_bytes(load)
    announced = len(span) * block_size(checkpoint, dtype, kind).weight_bytes
    assert announced == pytest.approx(taken, rel=0.05)
    _, grown = held_bytes(lambda: run(base, checkpoint).nbytes)
    assert grown < 0.01 * taken, "its first step brings a layer into another shape"


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_shares_weights_and_copies_none(checkpoint: Checkpoint, kind: str) -> None:
    model = SpanModel(load_span(checkpoint, SPAN, dtype="fp32", quantization=kind), SPAN)
    _, taken = held_bytes(lambda: _stock(model, 0))
    assert taken < 0.1 * block_size(checkpoint, "fp32", kind).weight_bytes


def test_a_router_that_is_kept_in_fp32_does_not_decide_the_dtype_of_a_span(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(make_model(tmp_path, "glm4-moe")))
    span = Span(1, 2)
    model = SpanModel(load_span(checkpoint, span, dtype="bf16", quantization="nf4"), span)
    assert next(p.dtype for p in model.own_block(1).parameters() if p.is_floating_point()) == torch.float32
    assert model.dtype == torch.bfloat16
    verify_span(model)


@pytest.mark.parametrize("family", EXPERTS)
@pytest.mark.parametrize("kind", KINDS)
def test_stacks_of_experts_are_quantized_too(tmp_path: Path, family: str, kind: str) -> None:
    checkpoint = open_checkpoint(str(make_model(tmp_path, family)))
    base = load_span(checkpoint, Span(0, 1), quantization=kind)
    stacks = [module for module in find_blocks(base)[0].modules() if isinstance(module, QuantizedExperts)]
    assert len(stacks) == 2
    assert not any(parameter.dim() == 3 for parameter in base.parameters())


def test_an_experts_matrix_is_what_its_own_codes_say() -> None:
    load_bitsandbytes()
    stack = torch.randn(3, 8, 64, generator=torch.Generator().manual_seed(1))
    for kind, tolerance in (("int8", 0.02), ("nf4", 0.2)):
        experts = QuantizedExperts(stack, kind, "cpu")
        for number in range(3):
            difference = (experts[torch.tensor(number)] - stack[number]).norm() / stack[number].norm()
            assert 0 < difference < tolerance


def load_bitsandbytes() -> Any:
    quantize(nn.ModuleList([nn.Linear(64, 32)]), "nf4", "cpu")
    return sys.modules["bitsandbytes"]


def test_what_cannot_be_quantized_is_said_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = open_checkpoint(str(make_model(tmp_path, "llama4")))
    base = load_span(checkpoint, Span(1, 2), quantization="nf4")
    assert "% of a block's weights are not quantized but stay in float32" in caplog.text
    stacks = [weight for weight in base.parameters() if weight.dim() == 3]
    assert stacks
    assert block_size(checkpoint, "fp32", "nf4").weight_bytes > sum(stack.nbytes for stack in stacks)
    verify_span(SpanModel(base, Span(1, 2)))


def test_heirs_of_linear_layers_that_compute_something_else_are_left_alone(tmp_path: Path) -> None:
    class Sorting(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).sort().values

    class Same(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return input @ self.weight.T + self.bias

    block = nn.ModuleList([Sorting(64, 32), Same(64, 32), nn.Linear(64, 32), nn.Linear(63, 32)])
    quantize(block, "nf4", "cpu")
    assert [is_quantized(layer) for layer in block] == [False, True, True, False]


@pytest.mark.parametrize(
    ("rows", "columns"), [(32, 64), (64, 128), (16, 64), (48, 32), (33, 66), (32, 96), (5, 2), (160, 192)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_of_any_shape_compute_what_their_codes_say(
    rows: int, columns: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 3, 4, columns, generator=generator, dtype=dtype)
    for kind in ("int8", "nf4"):
        block = nn.ModuleList([nn.Linear(columns, rows, dtype=dtype)])
        expected = block.float()[0](inputs.float()).detach()
        block.to(dtype)
        quantize(block, kind, "cpu")
        with torch.inference_mode():
            outputs = block[0](inputs).float()
        assert outputs.shape == expected.shape
        assert (outputs - expected).norm() < (0.03 if kind == "int8" else 0.2) * expected.norm()


@pytest.mark.parametrize(("rows", "columns"), [(32, 64), (6, 10), (64, 4096)])
@pytest.mark.parametrize("is_double", [False, True])
def test_what_a_client_dequantizes_is_what_bitsandbytes_dequantizes(
    rows: int, columns: int, is_double: bool
) -> None:
    functional = load_bitsandbytes().functional
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(4))
    codes, state = functional.quantize_4bit(weights, quant_type="nf4", compress_statistics=is_double)
    nested = state.state2 and _nested_of(state)
    matrix = Nf4Matrix((rows, columns), codes.flatten(), state.absmax, state.blocksize, nested)
    assert torch.allclose(matrix.dequantize(), functional.dequantize_4bit(codes, state), atol=1e-6)
    codes8, scales, _ = functional.int8_vectorwise_quant(weights.half())
    theirs = functional.int8_vectorwise_dequant(codes8, scales)
    assert torch.allclose(Int8Matrix(codes8, scales).dequantize(), theirs, atol=1e-5)


def _nested_of(state: Any) -> Any:
    from swarm.checkpoint.prequantized import Nested

    return Nested(state.state2.absmax, state.state2.code, float(state.offset))


class OtherAttention(LlamaAttention):
    """Attention that computes something else here than in transformers."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_ours = self.config._attn_implementation == ATTENTION
        return super().forward(hidden_states.roll(int(is_ours), 1), *args, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_still_finds_attention_that_is_another_here(kind: str) -> None:
    base = random_base(make_config("llama"))
    for block in find_blocks(base):
        attention = block.get_submodule("self_attn")
        attention.__class__ = OtherAttention
        quantize(block, kind, "cpu")
    with pytest.raises(ConfigError, match="would answer differently here"):
        verify_span(SpanModel(base, Span(0, 6)))


MEASURED = """
import gc, re, sys
from pathlib import Path
from server.block_loader import block_size, load_span
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span

def bytes_of(kind):
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

checkpoint, kind = open_checkpoint(sys.argv[1]), sys.argv[2]
load_span(checkpoint, Span(0, 1), quantization=kind)  # imports and the allocator's own needs do not count
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = bytes_of("VmRSS")
kept = load_span(checkpoint, Span(0, 12), quantization=kind)
announced = 12 * block_size(checkpoint, "auto", kind).weight_bytes
full = block_size(checkpoint, "auto").weight_bytes
print((bytes_of("VmRSS") - before) / announced, (bytes_of("VmHWM") - before - announced) / full)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", KINDS)
def test_loading_takes_the_memory_of_quantized_blocks_and_of_few_full_ones(tmp_path: Path, kind: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12}
    path = make_model(tmp_path, "llama", dtype=torch.bfloat16, **sizes)
    command = [sys.executable, "-c", MEASURED, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    share_that_stays, full_blocks_at_the_peak = map(float, done.stdout.split())
    assert share_that_stays < 1.25
    assert full_blocks_at_the_peak < 8  # 3.4 to 5.6 were seen; all at once would be 12


PROGRAM = """
import sys
from server.block_loader import load_span
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "kernels":
            print("asked for", name)

sys.meta_path.insert(0, Watch())
load_span(open_checkpoint(sys.argv[1]), Span(0, 1), quantization="nf4")
print("kernels" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)  # it starts a process that imports everything anew
def test_bitsandbytes_is_loaded_quietly_and_fetches_no_code(tmp_path: Path) -> None:
    path = make_model(tmp_path, "llama")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
    assert "kernels" not in done.stderr


torch.set_num_threads(1)  # models this small are six times slower where threads wait for one another
