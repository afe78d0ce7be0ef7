"""Checkpoints in directories are believed only after a look: what is wrong is told in a sentence."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.skeleton import build_skeleton
from swarm.errors import ConfigError
from tests.swarm.checkpoints import NUM_BLOCKS, change_config, save_only_config, save_random_model


def test_sizes_are_known_without_transformers(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    program = (
        "import sys; from swarm.checkpoint import open_checkpoint; c = open_checkpoint(sys.argv[1]);"
        " print(c.num_blocks, c.hidden_size, len(c.fingerprint));"
        " sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("4 32 32\n", "", 0)


def test_families_with_other_words_for_sizes_are_understood(tmp_path: Path) -> None:
    save_random_model(tmp_path, "gpt2")
    checkpoint = open_checkpoint(str(tmp_path))
    assert (checkpoint.num_blocks, checkpoint.hidden_size, checkpoint.max_positions) == (NUM_BLOCKS, 32, 64)


def test_every_tensor_belongs_to_one_block_or_to_the_ends(tmp_path: Path) -> None:
    save_random_model(tmp_path, "mixtral")
    checkpoint = open_checkpoint(str(tmp_path))
    names = [*checkpoint.end_tensor_names()]
    for index in range(NUM_BLOCKS):
        names += checkpoint.block_tensor_names(index)
    assert sorted(names) == sorted(checkpoint.tensor_names())
    assert all(".layers.1." in name for name in checkpoint.block_tensor_names(1))


def test_reading_an_unknown_name_is_told(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    with pytest.raises(ConfigError, match="has no tensor 'nothing'"):
        open_checkpoint(str(tmp_path)).read(["nothing"])


def test_the_fingerprint_is_the_same_for_a_copy_and_another_for_another_model(tmp_path: Path) -> None:
    first, copy, other, split = (tmp_path / name for name in ("first", "copy", "other", "split"))
    save_random_model(first)
    save_random_model(copy)
    save_random_model(other, "llama-tied")
    save_random_model(split, max_shard_size="20KB")
    prints = [open_checkpoint(str(folder)).fingerprint for folder in (first, copy, other, split)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    change_config(copy, rms_norm_eps=1e-3)
    assert open_checkpoint(str(copy)).fingerprint != prints[0]


def test_the_layout_of_json_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    before = open_checkpoint(str(tmp_path)).fingerprint
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert open_checkpoint(str(tmp_path)).fingerprint == before


def empty(folder: Path) -> None:
    pass


def pickled(folder: Path) -> None:
    save_only_config(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")


def no_index(folder: Path) -> None:
    save_only_config(folder)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")


def text(name: str, content: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_random_model(folder, max_shard_size="20KB")
        (folder / name).write_text(content)

    return damage


def config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_random_model(folder)
        change_config(folder, **changes)

    return damage


def unreadable(folder: Path) -> None:
    (folder / "config.json").symlink_to("/proc/self/mem")  # a file that even root cannot read at its start


def truncated(folder: Path) -> None:
    save_random_model(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (empty, "has no config.json, so it is not a model; check the path"),
        (save_only_config, "has no safetensors weights; get model.safetensors or its parts"),
        (pickled, "has only pickled weights, which can run code when read; convert them to safetensors"),
        (no_index, "has neither model.safetensors nor .*; get the missing file"),
        (unreadable, "cannot be read .*; check its permissions"),
        (truncated, "is damaged: it ends 1 bytes too early; delete it and get it again"),
        (text("config.json", "{"), "is not JSON; get it again"),
        (text("config.json", "[" * 100_000), "is not JSON; get it again"),
        (text("config.json", "[]"), "is not a JSON object; get it again"),
        (text("config.json", "{}"), "names no model_type; get the model's own config.json"),
        (text("config.json", '{"model_type": 3}'), "names no model_type"),
        (text(INDEX, "no"), "is not JSON; get it again"),
        (text(INDEX, "{}"), "names no tensors; get it again"),
        (text(INDEX, '{"weight_map": {}}'), "names no tensors; get it again"),
        (text(INDEX, '{"weight_map": {"a": "../../etc/passwd"}}'), "puts 'a' into something that is no"),
        (text(INDEX, '{"weight_map": {"a": "/x.safetensors"}}'), "puts 'a' into something that is no"),
        (
            text(INDEX, f'{{"weight_map": {{"a": "{5000 * "x"}.safetensors"}}}}'),
            "puts 'a' into something that is no",
        ),
        (text(INDEX, '{"weight_map": {"a": 3}}'), "puts 'a' into something that is no"),
        (config(num_hidden_layers=10**9), "an impossible num_hidden_layers; get the model's own config.json"),
        (config(num_hidden_layers="4"), "an impossible num_hidden_layers"),
        (config(hidden_size=0), "an impossible hidden_size"),
        (config(model_type="novel"), "of type 'novel', which the installed transformers does not know"),
        (config(model_type="bert"), r"\(bert\) is not a decoder for text alone|bert"),
        (config(model_type="t5"), r"\(t5\) is not a decoder for text alone"),
        (config(model_type="llava"), r"\(llava\) is not a decoder for text alone"),
        (config(num_attention_heads="many"), "malformed; get the model's own config.json"),
        (config(rope_parameters=[]), "config.json"),
        (config(num_attention_heads=-1), "get the model's own config.json|get both again"),
        (config(vocab_size=10**15), "get the model's own config.json|get both again"),
        (config(quantization_config={"quant_method": "gptq"}), "is stored quantized; take the original"),
        (
            config(auto_map={"AutoConfig": "evil.Config"}, model_type="evil"),
            "runs no code that comes with a model",
        ),
    ],
)
def test_a_damaged_directory_is_told_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(tmp_path)
    with pytest.raises(ConfigError, match=sentence) as raised:
        use(open_checkpoint(str(tmp_path)))
    assert "\n" not in str(raised.value)


def use(checkpoint: Checkpoint) -> None:
    """Ask for all that a server and a client ask for."""
    from server.block_loader import load_span
    from swarm.model_ends import load_ends
    from swarm.wire.blocks import Span

    assert checkpoint.num_blocks
    assert checkpoint.hidden_size
    assert checkpoint.fingerprint
    load_span(checkpoint, Span(0, 1))
    load_ends(checkpoint)


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere", "a b", "", "x\0y", "--"]
)
def test_what_is_neither_a_directory_nor_a_name_is_told(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a directory nor"):
        open_checkpoint(name, offline=True)


def test_a_model_file_instead_of_its_directory_is_told(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    with pytest.raises(ConfigError, match="check the path"):
        open_checkpoint(str(tmp_path / "model.safetensors"))


def test_dynamic_rope_takes_its_factor_more_positions_than_the_original_length(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_config(tmp_path, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0})
    checkpoint = open_checkpoint(str(tmp_path))
    assert checkpoint.max_positions == 4 * checkpoint.config.max_position_embeddings
    change_config(tmp_path, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})
    assert open_checkpoint(str(tmp_path)).max_positions == checkpoint.config.max_position_embeddings


def test_a_padding_token_outside_of_the_vocabulary_is_told_in_a_sentence(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    change_config(tmp_path, pad_token_id=2**31)
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(ConfigError, match="of these sizes cannot be built"):
        build_skeleton(checkpoint.config, torch.float32)
