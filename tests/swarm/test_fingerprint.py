"""A model's fingerprint: the same for the same weights, another for others; each file is read once."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.digests import MAX_REMEMBERED, DigestMemory, load_digests, save_digests
from swarm.checkpoint.files import LocalFiles
from swarm.errors import ConfigError
from tests.swarm.checkpoints import change_config, save_random_model

LONG_AGO_NS = 10**18


def fingerprint(folder: Path) -> str:
    return open_checkpoint(str(folder)).fingerprint


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def settled(path: Path, content: bytes) -> Path:
    """A file that was last changed long ago."""
    path.write_bytes(content)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


@pytest.fixture
def memory(tmp_path: Path) -> DigestMemory:
    return DigestMemory(tmp_path / "memory" / "digests.json", worth_bytes=0)


@pytest.mark.parametrize("max_shard_size", ["50GB", "20KB"])
def test_one_changed_byte_of_one_weight_makes_another_model(tmp_path: Path, max_shard_size: str) -> None:
    save_random_model(tmp_path, max_shard_size=max_shard_size)
    before = fingerprint(tmp_path)
    change_a_byte(sorted(tmp_path.glob("*.safetensors"))[-1])
    assert fingerprint(tmp_path) != before


def test_the_same_weights_in_two_directories_are_one_model(tmp_path: Path) -> None:
    save_random_model(tmp_path / "first", max_shard_size="20KB")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert fingerprint(tmp_path / "first") == fingerprint(tmp_path / "second")


def test_a_config_saved_again_elsewhere_is_the_same_model_but_other_sizes_are_not(tmp_path: Path) -> None:
    save_random_model(tmp_path)
    before = fingerprint(tmp_path)
    change_config(
        tmp_path, transformers_version="9", _name_or_path="/x", torch_dtype="float16", dtype="float16"
    )
    assert fingerprint(tmp_path) == before
    change_config(tmp_path, something_new=1)
    assert fingerprint(tmp_path) != before


def test_a_name_for_others_has_no_folders_in_it(tmp_path: Path) -> None:
    save_random_model(tmp_path / "secret" / "model")
    assert open_checkpoint(str(tmp_path / "secret" / "model")).title == "model"


def test_a_directory_with_some_of_the_files_is_fingerprinted_by_its_list_of_checksums(tmp_path: Path) -> None:
    save_random_model(tmp_path, max_shard_size="20KB")
    whole = fingerprint(tmp_path)
    shards = sorted(tmp_path.glob("*.safetensors"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in shards)
    shards[0].unlink()
    with pytest.raises(ConfigError, match=r"lacks model-.*get that file again, or run .*SHA256SUMS"):
        fingerprint(tmp_path)
    (tmp_path / "SHA256SUMS").write_text(sums)
    assert fingerprint(tmp_path) == whole
    change_a_byte(shards[1])  # what is here counts, whatever the list says
    assert fingerprint(tmp_path) != whole


def test_a_remembered_file_is_not_read_again(tmp_path: Path, memory: DigestMemory) -> None:
    save_random_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    os.utime(weights, ns=(LONG_AGO_NS, LONG_AGO_NS))
    heard: list[tuple[str, int, int]] = []

    def find() -> str:
        checkpoint = Checkpoint(LocalFiles(tmp_path / "model", memory))
        return checkpoint.find_fingerprint(lambda *what: heard.append(what))

    first, size = find(), weights.stat().st_size
    assert heard == [("checking model.safetensors", size, size)]
    assert find() == first
    assert len(heard) == 1
    assert sorted(os.listdir(tmp_path / "model")) == ["config.json", "generation_config.json", weights.name]


def test_a_changed_file_of_the_same_size_is_read_again(tmp_path: Path, memory: DigestMemory) -> None:
    path = settled(tmp_path / "x", b"first")
    assert memory.find_digest(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"other")
    os.utime(path, ns=(LONG_AGO_NS + 1, LONG_AGO_NS + 1))
    assert memory.find_digest(path) == hashlib.sha256(b"other").hexdigest()
    os.replace(settled(tmp_path / "y", b"third"), path)
    assert memory.find_digest(path) == hashlib.sha256(b"third").hexdigest()


def test_a_file_that_may_still_change_within_a_tick_of_the_clock_is_not_remembered(
    tmp_path: Path, memory: DigestMemory
) -> None:
    (tmp_path / "x").write_bytes(b"new")
    memory.find_digest(tmp_path / "x")
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": 5, "b": "x"}'])
def test_a_damaged_memory_costs_only_the_computation(
    tmp_path: Path, memory: DigestMemory, damage: bytes
) -> None:
    path, kept = settled(tmp_path / "x", b"content"), tmp_path / "memory" / "digests.json"
    kept.parent.mkdir()
    kept.write_bytes(damage)
    assert memory.find_digest(path) == hashlib.sha256(b"content").hexdigest()
    assert list(json.loads(kept.read_text()).values()) == [hashlib.sha256(b"content").hexdigest()]


def test_a_memory_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = DigestMemory(tmp_path / "file" / "digests.json", worth_bytes=0)
    assert memory.find_digest(settled(tmp_path / "x", b"x")) == hashlib.sha256(b"x").hexdigest()


def test_the_memory_forgets_the_oldest(tmp_path: Path) -> None:
    digest = "0" * 64
    save_digests(tmp_path / "d", {f"{n}": digest for n in range(MAX_REMEMBERED)})
    save_digests(tmp_path / "d", {"0": digest, "new": digest})
    kept = load_digests(tmp_path / "d")
    assert len(kept) == MAX_REMEMBERED
    assert list(kept)[-2:] == ["0", "new"]
    assert "1" not in kept


def test_a_weight_file_that_cannot_be_read_is_told(tmp_path: Path, memory: DigestMemory) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); check the disk"):
        memory.find_digest(tmp_path)
