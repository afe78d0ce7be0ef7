"""A span that is loaded alone computes what the same blocks compute in the whole model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from server.block_loader import block_size, load_span
from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.fitting import BlockSize
from swarm.checkpoint.skeleton import PassThrough, find_layers
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.swarm.checkpoints import FAMILIES, NUM_BLOCKS, change_config, run_and_record, save_random_model

IDS = torch.tensor([[5, 1, 7, 3, 98, 0, 12]])


@pytest.mark.parametrize("family", FAMILIES)
def test_two_spans_in_a_row_equal_the_whole_model(tmp_path: Path, family: str) -> None:
    entered, left, _ = run_and_record(save_random_model(tmp_path, family), IDS)
    checkpoint = open_checkpoint(str(tmp_path))
    first, second = load_span(checkpoint, Span(0, 1)), load_span(checkpoint, Span(1, NUM_BLOCKS))
    with torch.no_grad():
        between = first(inputs_embeds=entered, use_cache=False)[0]
        output = second(inputs_embeds=between, use_cache=False)[0]
    assert torch.equal(between, left[0])
    assert torch.equal(output, left[-1])


def test_only_the_spans_own_tensors_are_read_and_kept(tmp_path: Path) -> None:
    model = save_random_model(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    base = load_span(checkpoint, Span(1, 3))
    layers = base.get_submodule(find_layers(base, NUM_BLOCKS)).children()
    block_bytes = sum(weight.numel() * 4 for weight in model.model.layers[0].parameters())
    assert checkpoint.bytes_read == 2 * block_bytes
    assert sum(weight.numel() * 4 for weight in base.parameters()) == 2 * block_bytes
    assert [isinstance(layer, PassThrough) for layer in layers] == [True, False, False, True]


def test_files_that_hold_none_of_the_span_need_not_be_there(tmp_path: Path) -> None:
    save_random_model(tmp_path, max_shard_size="20KB")
    whole = open_checkpoint(str(tmp_path))
    needed = set(whole.block_tensor_names(2))
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(weight_map.values()) - {weight_map[name] for name in needed}:
        (tmp_path / shard).unlink()
    part = open_checkpoint(str(tmp_path))
    load_span(part, Span(2, 3))
    with pytest.raises(ConfigError, match=r"lacks model-.*get that file again"):
        load_span(part, Span(0, NUM_BLOCKS))


def test_progress_is_told_in_bytes_and_ends_at_the_total(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    heard: list[tuple[str, int, int]] = []
    checkpoint = open_checkpoint(str(tmp_path))
    load_span(checkpoint, Span(0, 2), progress=lambda *what: heard.append(what))
    total = checkpoint.bytes_read
    assert heard == [("loading", total // 2, total), ("loading", total, total)]


def test_weights_take_the_dtype_that_is_asked_for_and_rotary_frequencies_stay_fp32(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    base = load_span(open_checkpoint(str(tmp_path)), Span(0, 1), dtype="bf16")
    assert {weight.dtype for weight in base.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in base.buffers()} == {torch.float32}


def test_fp16_becomes_bf16_on_a_cpu_unless_it_is_asked_for(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    halves = {name.replace(".", "__"): tensor.half() for name, tensor in tensors.items()}
    change_tensors(tmp_path, **halves)
    change_config(tmp_path, dtype="float16")
    checkpoint = open_checkpoint(str(tmp_path))
    assert next(load_span(checkpoint, Span(0, 1)).parameters()).dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="use bf16 or fp32"):
        load_span(checkpoint, Span(0, 1), dtype="fp16")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", BlockSize(30976, 128)),
        ("bloom", BlockSize(50816, 256)),
        ("mixtral", BlockSize(86784, 128)),
        (
            "falcon",
            BlockSize(43264, 64),
        ),  # all query heads share one key head
    ],
)
def test_a_blocks_size_is_known_without_reading_weights(
    tmp_path: Path, family: str, expected: BlockSize
) -> None:
    save_random_model(tmp_path, family)
    checkpoint = open_checkpoint(str(tmp_path))
    assert block_size(checkpoint, "fp32") == expected
    assert block_size(checkpoint, "bf16").weight_bytes == expected.weight_bytes // 2
    assert checkpoint.bytes_read == 0


def test_a_span_outside_of_the_model_is_refused(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    with pytest.raises(ConfigError, match="has blocks 0:4; 3:5 is outside"):
        load_span(open_checkpoint(str(tmp_path)), Span(3, 5))


@pytest.mark.parametrize(("quantization", "tolerance"), [("int8", 0.02), ("nf4", 0.5)])
def test_a_quantized_span_answers_nearly_the_same_from_fewer_bytes(
    tmp_path: Path, quantization: str, tolerance: float
) -> None:
    entered, left, _ = run_and_record(save_random_model(tmp_path), IDS)
    checkpoint = open_checkpoint(str(tmp_path))
    base = load_span(checkpoint, Span(0, 2), quantization=quantization)
    with torch.no_grad():
        output = base(inputs_embeds=entered, use_cache=False)[0]
    assert not torch.equal(output, left[1])
    assert (output - left[1]).std() < tolerance * left[1].std()
    stored = sum(weight.numel() * weight.element_size() for weight in base.parameters())
    expected = 2 * block_size(checkpoint, "fp32", quantization).weight_bytes
    assert stored <= expected < 2 * block_size(checkpoint, "fp32").weight_bytes / 2


@pytest.mark.timeout(180)  # it starts a process that imports everything anew
def test_loading_two_of_sixteen_blocks_takes_the_memory_of_about_two(tmp_path: Path) -> None:
    save_random_model(tmp_path, num_hidden_layers=16, hidden_size=256, intermediate_size=768)
    block_bytes = block_size(open_checkpoint(str(tmp_path)), "fp32").weight_bytes
    program = """
import re, sys
from pathlib import Path
from server.block_loader import load_span
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span

def peak_kib(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

load_span(open_checkpoint(sys.argv[1]), Span(0, 1))  # imports and the allocator's own needs do not count
Path("/proc/self/clear_refs").write_text("5")
before = peak_kib()
kept = load_span(open_checkpoint(sys.argv[1]), Span(8, 10))
print((peak_kib() - before) * 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 4 * block_bytes


def test_unknown_quantizations_and_dtypes_are_refused(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(ConfigError, match="use none, int8 or nf4"):
        load_span(checkpoint, Span(0, 1), quantization="int3")
    with pytest.raises(ConfigError, match="use auto, fp32 or bf16"):
        load_span(checkpoint, Span(0, 1), dtype="int8")


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a single-file checkpoint by name; None removes one."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_tensors(tmp_path, model__layers__1__mlp__up_proj__weight=None)
    with pytest.raises(ConfigError, match=r"no tensor for model\.layers\.1\.mlp\.up_proj\.weight"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 2))
    load_span(open_checkpoint(str(tmp_path)), Span(2, 4))


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_tensors(tmp_path, model__layers__1__mlp__up_proj__weight=torch.zeros(3, 5))
    with pytest.raises(
        ConfigError, match=r"up_proj\.weight has shape \[3, 5\], config.json asks for \[48, 32\]"
    ):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 2))


def test_a_tensor_that_nothing_takes_is_refused_in_the_span_and_ignored_elsewhere(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_tensors(tmp_path, model__layers__1__mlp__extra=torch.zeros(3))
    with pytest.raises(ConfigError, match="has no place in a llama"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 2))
    load_span(open_checkpoint(str(tmp_path)), Span(2, 4))


def test_buffers_of_old_checkpoints_are_skipped_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_random_model(tmp_path)
    change_tensors(tmp_path, model__layers__1__self_attn__rotary_emb__inv_freq=torch.zeros(4))
    with caplog.at_level("INFO", logger="swarm.checkpoint"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 2))
    assert "skipped model.layers.1.self_attn.rotary_emb.inv_freq" in caplog.text


def test_experts_of_different_shapes_are_refused(tmp_path: Path) -> None:
    save_random_model(tmp_path, "mixtral")
    name = next(name for name in load_file(tmp_path / "model.safetensors") if ".experts.1." in name)
    change_tensors(tmp_path, **{name.replace(".", "__"): torch.zeros(2, 2)})
    with pytest.raises(ConfigError, match="do not fit together"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, NUM_BLOCKS))


def test_names_without_the_models_prefix_are_understood(tmp_path: Path) -> None:
    model = save_random_model(tmp_path, "bloom")
    entered, left, _ = run_and_record(model, IDS)
    model.get_decoder().save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    assert "h.0.input_layernorm.bias" in load_file(tmp_path / "model.safetensors")
    base = load_span(open_checkpoint(str(tmp_path)), Span(0, NUM_BLOCKS))
    with torch.no_grad():
        assert torch.equal(base(inputs_embeds=entered, use_cache=False)[0], left[-1])


def test_a_family_that_changes_hidden_states_between_blocks_and_ends_is_refused(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_config(tmp_path, model_type="granite", embedding_multiplier=3.0)
    with pytest.raises(ConfigError, match="changes hidden states outside of its blocks"):
        load_span(open_checkpoint(str(tmp_path)), Span(0, 1))
