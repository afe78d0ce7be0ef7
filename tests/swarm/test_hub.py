"""A model on the Hub: only what is needed is fetched, once, verified; every refusal is a sentence."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from server.block_loader import block_size
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE
from swarm.checkpoint.hub import HubFiles
from swarm.errors import ConfigError
from tests.swarm.checkpoints import change_config, save_only_config, save_random_model
from tests.swarm.hub import COMMIT, REPOSITORY, FakeHub, open_hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "hub"
    save_random_model(folder, max_shard_size="20KB")
    with open_hub(folder) as hub:
        yield hub


def open_from(hub: FakeHub, **arguments: Any) -> Checkpoint:
    cache = hub.folder.parent / "cache"
    return Checkpoint(HubFiles(REPOSITORY, cache_dir=cache, endpoint=hub.endpoint, **arguments))


def test_opening_a_model_on_the_hub_fetches_no_weights(hub: FakeHub) -> None:
    checkpoint = open_from(hub)
    assert checkpoint.fingerprint == open_checkpoint(str(hub.folder)).fingerprint
    assert hub.fetched() == {"config.json", INDEX_FILE, "digests"}


@pytest.mark.parametrize("dtype", ["float32", None])
def test_the_size_of_a_block_is_known_from_the_config_and_the_head_of_a_file(
    hub: FakeHub, dtype: str | None
) -> None:
    change_config(hub.folder, dtype=dtype)
    size = block_size(open_from(hub), "auto")
    assert size == block_size(open_checkpoint(str(hub.folder)), "auto")
    parts = [part for _, name, part in hub.requests if name.endswith(".safetensors") and part]
    assert parts == ([] if dtype else ["bytes=0-100000"])
    assert [part for method, name, part in hub.requests if name.endswith("of-00008.safetensors")] == parts


def test_a_model_in_one_file_has_the_same_fingerprint_before_it_is_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    save_random_model(folder)
    with open_hub(folder) as hub:
        remote = open_from(hub)
        assert remote.fingerprint == open_checkpoint(str(folder)).fingerprint
        assert all(part for method, name, part in hub.requests if (method, name) == ("GET", SINGLE_FILE))
        name = remote.tensor_names()[0]
        expected = load_file(folder / SINGLE_FILE)[name]
        assert torch.equal(remote.read([name])[name], expected)
        assert open_from(hub, offline=True).fingerprint == remote.fingerprint


def test_only_the_files_that_hold_the_tensors_are_fetched_once_and_progress_is_told(hub: FakeHub) -> None:
    checkpoint = open_from(hub)
    names = checkpoint.block_tensor_names(1)
    heard: list[tuple[str, int, int]] = []
    tensors = checkpoint.read(names, lambda *what: heard.append(what))
    shards = {name for name in hub.fetched() if name.endswith(".safetensors")}
    assert shards == {f"model-0000{n}-of-00008.safetensors" for n in (3, 4)}
    assert {told for told in heard if told[1] == told[2]} == {
        (f"{doing} {name}", size, size)
        for doing in ("downloading", "checking")
        for name in shards
        for size in [(hub.folder / name).stat().st_size]
    }
    local = open_checkpoint(str(hub.folder)).read(names)
    assert all(torch.equal(tensors[name], local[name]) for name in names)
    hub.requests.clear()
    open_from(hub).read(names)
    assert hub.fetched() == {"digests"}


def test_a_warm_cache_needs_no_network(hub: FakeHub) -> None:
    names = (warm := open_from(hub)).block_tensor_names(0)
    warm.read(names)
    fingerprint = warm.fingerprint
    hub.requests.clear()
    cold = open_from(hub, offline=True)
    assert cold.fingerprint == fingerprint
    assert cold.read(names)
    assert cold.find_file("tokenizer.json") is None
    assert hub.requests == []
    with pytest.raises(
        ConfigError, match=r"model-.* is not in the cache, and HF_HUB_OFFLINE is set; unset it, or"
    ):
        cold.read(warm.block_tensor_names(3))


def test_a_full_cache_that_another_program_filled_is_fingerprinted_without_network(hub: FakeHub) -> None:
    (warm := open_from(hub)).read(warm.tensor_names())
    hub.requests.clear()
    assert open_from(hub, offline=True).fingerprint == open_checkpoint(str(hub.folder)).fingerprint
    assert hub.requests == []


def test_an_offline_start_without_any_digest_says_which_file_is_lacking(hub: FakeHub) -> None:
    open_from(hub)
    with pytest.raises(ConfigError, match=r"model-00001-of-00008\.safetensors of .* is not in the cache"):
        _ = open_from(hub, offline=True).fingerprint


def test_a_damaged_memory_of_the_hubs_digests_is_asked_for_again(hub: FakeHub) -> None:
    fingerprint = open_from(hub).fingerprint
    (memory,) = hub.folder.parent.glob("murmur-digests/*.json")
    memory.write_text('{"model-00001-of-00008.safetensors": "../../etc/passwd"')
    assert open_from(hub).fingerprint == fingerprint


def test_a_snapshot_in_the_cache_has_the_fingerprint_of_its_model(hub: FakeHub) -> None:
    (warm := open_from(hub)).read(warm.tensor_names())
    (snapshot,) = (hub.folder.parent / "cache").glob(f"*/snapshots/{COMMIT}")
    assert open_checkpoint(str(snapshot)).fingerprint == warm.fingerprint


def test_a_warm_cache_is_used_when_the_network_has_gone(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    save_random_model(folder, max_shard_size="20KB")
    with open_hub(folder) as hub:
        names = (warm := open_from(hub)).block_tensor_names(0)
        warm.read(names)
    assert open_from(hub).read(names)


def test_hf_hub_offline_is_obeyed(hub: FakeHub) -> None:
    open_from(hub)
    program = (
        "import sys; from pathlib import Path; from swarm.checkpoint import open_checkpoint;"
        " print(open_checkpoint(sys.argv[1], cache_dir=Path(sys.argv[2])).num_blocks)"
    )
    cache = hub.folder.parent / "cache"
    done = subprocess.run(
        [sys.executable, "-c", program, REPOSITORY, str(cache)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr


def test_a_model_that_has_another_name_now_is_followed(hub: FakeHub) -> None:
    hub.add("someone/renamed", hub.folder)
    hub.moved = {REPOSITORY: "someone/renamed"}
    (checkpoint := open_from(hub)).read(checkpoint.block_tensor_names(1))
    assert checkpoint.fingerprint == open_checkpoint(str(hub.folder)).fingerprint


def test_all_files_come_from_the_commit_of_the_first(hub: FakeHub) -> None:
    checkpoint = open_from(hub)
    path = checkpoint.find_file("generation_config.json")
    assert path is not None
    assert path.parent.name == COMMIT


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "RepoNotFound",
            "neither a directory nor a model on the Hub; .* if it is private log in with .*HF_TOKEN",
        ),
        ("GatedRepo", "asks for consent: accept its terms on the Hub, then log in"),
        ("Broken", r"the Hub refuses someone/model \(HTTP 403\); choose another model, or log in with"),
    ],
)
def test_refusals_of_the_hub_are_told(hub: FakeHub, code: str, sentence: str) -> None:
    hub.refuse = code
    with pytest.raises(ConfigError, match=sentence):
        open_from(hub)


def test_an_unknown_revision_is_told(hub: FakeHub) -> None:
    with pytest.raises(ConfigError, match="has no such revision; check what stands after the @"):
        open_from(hub, revision="v9")


@pytest.mark.parametrize(
    ("offline", "sentence"),
    [
        (True, "HF_HUB_OFFLINE is set; unset it, or fill the cache where there is a network"),
        (
            False,
            r"the Hub \(127.0.0.1:9\) cannot be reached \(ConnectError\); check the name and the network",
        ),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path, offline: bool, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{REPOSITORY} is neither a .* nor in the cache, and {sentence}$"):
        Checkpoint(HubFiles(REPOSITORY, cache_dir=tmp_path, endpoint="http://127.0.0.1:9", offline=offline))


def test_pickled_weights_on_the_hub_are_refused(tmp_path: Path) -> None:
    save_only_config(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with open_hub(tmp_path) as hub, pytest.raises(ConfigError, match="has only pickled weights"):
        Checkpoint(HubFiles(REPOSITORY, cache_dir=tmp_path / "cache", endpoint=hub.endpoint))
