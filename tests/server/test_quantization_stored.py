"""Checkpoints that are stored in int8 or nf4 run as they are, as in transformers, split over two spans."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from server.block_loader import block_size, load_span
from server.quantization import is_quantized
from server.span import SpanModel, find_blocks
from server.verify import verify_span
from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.block_sizes import resolve_quantization
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.errors import ConfigError
from swarm.model_ends import load_ends
from swarm.wire.blocks import Span
from tests.server.quantized_checkpoints import FORMATS, change_tensors, load_by_transformers, save_quantized
from tests.swarm.checkpoints import NUM_BLOCKS, change_config, run_and_record

IDS = torch.tensor([[5, 1, 7, 3, 98, 0, 12]])
CUT = 1
WEIGHT = "model.layers.1.mlp.up_proj.weight"
PACKED = f"{WEIGHT}.quant_state.bitsandbytes__nf4"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stored")
    return {form: save_quantized(folder / f"of-{form}", "llama", form) for form in ("int8", "nf4-double")}


@pytest.fixture(params=["int8", "nf4-double"])
def stored(request: pytest.FixtureRequest, both: dict[str, Path]) -> Path:
    return both[request.param]


def copied(stored: Path, path: Path) -> Path:
    """Copy a checkpoint to the empty directory `path`, to be changed there."""
    return Path(shutil.copytree(stored, path, dirs_exist_ok=True))


def check_two_spans(path: Path) -> None:
    """Fail unless two spans in a row compute, bit for bit, what transformers computes."""
    entered, left, logits = run_and_record(load_by_transformers(path), IDS)
    checkpoint = open_checkpoint(str(path))
    first, second = load_span(checkpoint, Span(0, CUT)), load_span(checkpoint, Span(CUT, NUM_BLOCKS))
    ends = load_ends(checkpoint)
    with torch.no_grad():
        between = first(inputs_embeds=entered, use_cache=False)[0]
        output = second(inputs_embeds=between, use_cache=False)[0]
    assert torch.equal(between, left[CUT - 1])
    assert torch.equal(output, left[-1])
    assert (ends.logits(output[0]) - logits[0]).abs().max() < 1e-5
    embedded = ends.embed(IDS[0])
    assert torch.equal(embedded, entered[0])


@pytest.mark.parametrize("form", FORMATS)
def test_two_spans_in_a_row_equal_transformers_own_run_of_the_checkpoint(tmp_path: Path, form: str) -> None:
    path = save_quantized(tmp_path, "llama", form)
    check_two_spans(path)
    assert is_quantized(find_blocks(load_span(open_checkpoint(str(path)), Span(0, 1)))[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "bloom", "gpt2", "mixtral"])
@pytest.mark.parametrize("form", ["int8", "nf4-double"])
def test_every_family_runs_as_transformers_stores_it(tmp_path: Path, family: str, form: str) -> None:
    check_two_spans(save_quantized(tmp_path, family, form))


@pytest.mark.parametrize("form", ["int8", "nf4", "nf4-double", "nf4-in-bf16"])
def test_the_stored_codes_are_the_ones_that_run(tmp_path: Path, form: str) -> None:
    path = save_quantized(tmp_path, "llama", form)
    stored = load_file(path / "model.safetensors")[WEIGHT]
    layer = load_span(open_checkpoint(str(path)), Span(1, 2)).get_submodule("layers.1.mlp.up_proj")
    assert stored.dtype in (torch.int8, torch.uint8, torch.bfloat16)
    stored_bytes = stored.view(torch.uint8).flatten().tolist()
    state: dict[str, Tensor] = layer.state_dict()
    assert state["weight"].view(torch.uint8).flatten().tolist() == stored_bytes


@pytest.mark.parametrize("form", ["int8", "nf4-double"])
def test_modules_that_were_skipped_stay_full_and_a_quantized_head_is_read(tmp_path: Path, form: str) -> None:
    skipped = ["q_proj", "model.layers.2"]
    path = save_quantized(tmp_path, "llama", form, llm_int8_skip_modules=skipped)
    names = load_file(path / "model.safetensors")
    assert names["model.layers.0.self_attn.q_proj.weight"].dtype == torch.float32
    assert names["model.layers.2.mlp.up_proj.weight"].dtype == torch.float32
    assert not names["lm_head.weight"].is_floating_point(), "who skips some modules skips no head"
    checkpoint = open_checkpoint(str(path))
    entered, left, logits = run_and_record(load_by_transformers(path), IDS)
    with torch.no_grad():
        output = load_span(checkpoint, Span(0, NUM_BLOCKS))(inputs_embeds=entered, use_cache=False)[0]
    assert torch.equal(output, left[-1])
    ours = load_ends(checkpoint).logits(output[0])
    # transformers rounds what enters such a head, to 127 steps or to bf16; ours is dequantized once.
    assert (ours - logits[0]).abs().max() < 0.02 * logits.abs().max()


def test_a_stored_span_passes_the_comparison_at_the_start_and_is_of_the_size_announced(stored: Path) -> None:
    checkpoint = open_checkpoint(str(stored))
    full = open_checkpoint(str(stored.parent / "full"))
    span = Span(0, NUM_BLOCKS)
    verify_span(SpanModel(load_span(checkpoint, span), span))
    kind = resolve_quantization(checkpoint, "none")
    assert kind == ("int8" if stored.name == "int8" else "nf4")
    assert resolve_quantization(checkpoint, kind) == kind
    assert block_size(checkpoint, "fp32") == block_size(full, "fp32", kind)


def test_asking_for_another_quantization_than_the_stored_one_is_refused(stored: Path) -> None:
    other = "nf4" if stored.name == "int8" else "int8"
    with pytest.raises(ConfigError, match=r"is stored in .*; leave --quantization out"):
        load_span(open_checkpoint(str(stored)), Span(0, 1), quantization=other)


def test_the_dtype_is_that_of_the_weights_which_are_not_quantized(tmp_path: Path) -> None:
    path = save_quantized(tmp_path, "gpt2", "int8")
    tensors = load_file(path / "model.safetensors")
    plain = {name: tensor.bfloat16() for name, tensor in tensors.items() if name.endswith("bias")}
    assert min(tensors) == "transformer.h.0.attn.c_attn.SCB"
    change_tensors(path, {**plain})
    change_config(path, dtype=None)
    assert resolve_dtype(open_checkpoint(str(path))) == torch.bfloat16


# --- refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["lm_head"]},
        {"quant_method": "fp8"},
        {"quant_method": "mxfp4"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},  # fp4
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
        {"quant_method": "bitsandbytes"},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": True},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_has_fp16_weight": True},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": -1.0},
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 1e400},
        {"quant_method": "bitsandbytes", "load_in_8bit": "yes"},
        {"quant_method": ["bitsandbytes"], "load_in_8bit": True},
        ["bitsandbytes"],
        "int8",
        7,
    ],
)
def test_any_other_stored_quantization_is_refused_in_one_sentence(
    both: dict[str, Path], tmp_path: Path, config: Any
) -> None:
    path = copied(both["int8"], tmp_path)
    change_config(path, quantization_config=config)
    with pytest.raises(ConfigError, match="is stored quantized; take the original weights") as refusal:
        load_span(open_checkpoint(str(path)), Span(0, 1))
    assert "\n" not in str(refusal.value)


def packed(text: bytes) -> Tensor:
    return torch.tensor(list(text), dtype=torch.uint8)


def state_with(**changes: Any) -> Tensor:
    usual = {
        "quant_type": "nf4",
        "blocksize": 64,
        "dtype": "float32",
        "shape": [128, 64],
        "nested_blocksize": 256,
        "nested_dtype": "float32",
        "nested_offset": 0.0,
    }
    return packed(json.dumps(usual | changes).encode())


DAMAGES: dict[str, list[tuple[dict[str, Tensor | None], str]]] = {
    "int8": [
        ({f"{WEIGHT[:-7]}.SCB": None}, "lacks its SCB"),
        ({f"{WEIGHT[:-7]}.SCB": None, f"{WEIGHT[:-7]}.weight_format": None}, "without what tells its scale"),
        ({f"{WEIGHT[:-7]}.SCB": torch.ones(127)}, "127 numbers of float32 as SCB, not 128"),
        ({f"{WEIGHT[:-7]}.SCB": torch.ones(128, dtype=torch.float64)}, "of float64 as SCB"),
        ({f"{WEIGHT[:-7]}.weight_format": torch.tensor(2, dtype=torch.uint8)}, "not stored row by row"),
        ({f"{WEIGHT[:-7]}.weight_format": torch.zeros(3, dtype=torch.uint8)}, "not stored row by row"),
        ({WEIGHT: torch.zeros(64, 128, dtype=torch.int8)}, r"has shape \[64, 128\], not \[128, 64\]"),
        ({WEIGHT: torch.zeros(128, 64)}, "of float32 as weight, not 8192 of int8"),
        ({WEIGHT: None}, "lacks its weight"),
        ({"model.layers.1.input_layernorm.SCB": torch.ones(64)}, "is no matrix|has no such matrix"),
        ({"model.layers.1.self_attn.SCB": torch.ones(64)}, "has no such matrix"),
    ],
    "nf4-double": [
        ({f"{WEIGHT}.absmax": None}, "lacks its absmax"),
        (
            {f"{WEIGHT}.absmax": torch.zeros(127, dtype=torch.uint8)},
            "127 numbers of uint8 as absmax, not 128",
        ),
        ({f"{WEIGHT}.absmax": torch.zeros(128)}, "of float32 as absmax, not 128 of uint8"),
        ({f"{WEIGHT}.nested_absmax": torch.zeros(0)}, "0 numbers of float32 as nested_absmax, not 1"),
        ({f"{WEIGHT}.nested_absmax": None}, "of uint8 as absmax, not 128 of float32"),
        ({f"{WEIGHT}.nested_quant_map": torch.zeros(255)}, "255 numbers of float32 as nested_quant_map"),
        ({f"{WEIGHT}.nested_quant_map": None}, "lacks its nested_quant_map"),
        ({f"{WEIGHT}.quant_map": None}, "lacks its quant_map"),
        ({f"{WEIGHT}.quant_map": torch.linspace(-1, 1, 16)}, "quant_map that is not nf4's"),
        ({WEIGHT: torch.zeros(4095, 1, dtype=torch.uint8)}, "holds 4095 bytes where 4096 bytes belong"),
        ({WEIGHT: None}, "holds nothing where 4096 bytes belong"),
        ({PACKED: None}, "lacks its quant_state"),
        ({PACKED: packed(b"rubbish")}, "cannot be read"),
        ({PACKED: packed(b"\xff\xfe\x00")}, "cannot be read"),
        ({PACKED: packed(b"[" * 4000)}, "cannot be read"),
        ({PACKED: packed(b'{"x":' + b"[" * 4000)}, "cannot be read"),
        ({PACKED: packed(b" " * 10_000_000)}, "that is not one"),
        ({PACKED: torch.zeros(10)}, "that is not one"),
        ({PACKED: torch.zeros(0, dtype=torch.uint8)}, "cannot be read"),
        ({PACKED: state_with(quant_type="fp4")}, "cannot be read"),
        ({PACKED: state_with(dtype="__import__")}, "cannot be read"),
        ({PACKED: state_with(shape=[128, 64, 1])}, "cannot be read"),
        ({PACKED: state_with(shape=None)}, "cannot be read"),
        ({PACKED: state_with(shape=[64, 128])}, r"is packed as \[64, 128\] by 64, not as \[128, 64\]"),
        ({PACKED: state_with(shape=[-128, -64])}, r"is packed as \[-128, -64\]"),
        ({PACKED: state_with(blocksize=0)}, "by 0, not"),
        ({PACKED: state_with(blocksize=2**60)}, "is packed as"),
        ({PACKED: state_with(blocksize=1)}, "is packed as"),
        ({PACKED: state_with(nested_blocksize=1)}, "has scales that bitsandbytes cannot read"),
        ({PACKED: state_with(nested_offset=float("inf"))}, "cannot be read"),
    ],
}


@pytest.mark.parametrize(
    ("form", "place"), [(form, place) for form, damages in DAMAGES.items() for place in range(len(damages))]
)
def test_a_damaged_matrix_is_refused_in_one_sentence(
    both: dict[str, Path], tmp_path: Path, form: str, place: int
) -> None:
    changes, sentence = DAMAGES[form][place]
    change_tensors(copied(both[form], tmp_path), changes)
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_span(open_checkpoint(str(tmp_path)), Span(0, 2))
    assert "\n" not in str(refusal.value)


def test_experts_that_were_quantized_one_by_one_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = save_quantized(tmp_path, "mixtral", "int8")
    expert = "model.layers.0.block_sparse_moe.experts.0.w1"
    codes = torch.zeros(128, 64, dtype=torch.int8)
    change_tensors(path, {f"{expert}.weight": codes, f"{expert}.SCB": torch.ones(128)})
    with pytest.raises(ConfigError, match=r"stores .*experts.* quantized, where .*use --quantization"):
        load_span(open_checkpoint(str(path)), Span(0, 1))


def test_quantized_tensors_without_a_word_of_it_in_the_config_are_refused(
    stored: Path, tmp_path: Path
) -> None:
    change_config(copied(stored, tmp_path), quantization_config=None)
    with pytest.raises(ConfigError, match="has no place in a llama"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 1))
