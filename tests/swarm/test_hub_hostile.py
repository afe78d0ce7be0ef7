"""A Hub that lies or hangs: one sentence, in bounded time and memory."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from swarm.checkpoint import Checkpoint
from swarm.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE
from swarm.checkpoint.hub import HubFiles
from swarm.errors import ConfigError
from tests.swarm.checkpoints import save_only_config, save_random_model
from tests.swarm.hub import REPOSITORY, FakeHub, Fault, open_hub

CONFIG = "config.json"
MOST_S = 5.0
MOST_MORE_BYTES = 200 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a config and no weights."""
    folder = tmp_path / "deep" / "model"
    folder.mkdir(parents=True)
    save_only_config(folder)
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    with open_hub(model) as hub:
        yield hub


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set, to which whole seconds alone can be given."""
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)


def open_from(hub: FakeHub) -> Checkpoint:
    cache = hub.folder.parent / "cache"
    return Checkpoint(HubFiles(REPOSITORY, cache_dir=cache, endpoint=hub.endpoint))


def sentence_of(hub: FakeHub, *, within_s: float = MOST_S) -> str:
    """What it ends with to open the model and to read it: that may take neither long nor much."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError) as caught:
        (checkpoint := open_from(hub)).read(checkpoint.tensor_names())
    assert time.monotonic() - started < within_s
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < MOST_MORE_BYTES
    assert "\n" not in str(caught.value)
    assert list(hub.folder.parents[1].iterdir()) == [hub.folder.parent], "all files belong into the cache"
    return str(caught.value)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("commit", ["", "../../../../evil", "main"])
def test_a_commit_that_is_none_is_refused(hub: FakeHub, commit: str) -> None:
    hub.faults[CONFIG] = Fault(headers={"X-Repo-Commit": commit})
    told = sentence_of(hub)
    assert told.startswith(
        {
            "": "what answers is no Hub: it names no commit or digest; check HF_ENDPOINT",
            "main": "what answers is no Hub: it names no commit; check HF_ENDPOINT",
        }.get(commit, "config.json of someone/model could not be downloaded (ValueError)")
    )


def test_a_file_without_a_digest_is_refused(hub: FakeHub) -> None:
    hub.faults[CONFIG] = Fault(headers={"ETag": ""})
    assert sentence_of(hub) == "what answers is no Hub: it names no commit or digest; check HF_ENDPOINT"


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x\0y", "", 7]
)
def test_an_index_that_leads_out_of_the_model_is_refused(hub: FakeHub, shard: object) -> None:
    (hub.folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "into something that is no safetensors file" in sentence_of(hub)


def test_an_index_that_names_files_that_are_not_there_is_told(hub: FakeHub) -> None:
    (hub.folder / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    assert sentence_of(hub).startswith("someone/model lacks gone.safetensors, which its index names")
    with pytest.raises(ConfigError, match=r"lacks gone\.safetensors, which its index names; choose another"):
        _ = open_from(hub).fingerprint


@pytest.mark.parametrize(
    "listed",
    [[7], [{"rfilename": 7}], [{"size": 1}], [{"rfilename": CONFIG, "size": "9", "lfs": {}}]],
    ids=str,
)
def test_a_listing_without_sense_is_one_sentence(hub: FakeHub, listed: list[Any]) -> None:
    hub.listed = listed
    assert "cannot be reached" in (told := sentence_of(hub)) or "has no safetensors weights" in told


# --- sizes ----------------------------------------------------------------------------------------


def test_a_config_of_a_gigabyte_is_refused_before_its_first_byte(hub: FakeHub) -> None:
    hub.listed = [{"rfilename": CONFIG, "size": 1 << 30}]
    assert "config.json of someone/model has 1.1 GB, too much to be what its name says" in sentence_of(hub)
    assert hub.sent[CONFIG] == 0


def test_a_config_that_is_larger_than_was_said_is_not_read(hub: FakeHub) -> None:
    hub.listed = [{"rfilename": CONFIG, "size": 100}]
    (hub.folder / CONFIG).write_bytes(b"[" * (5 << 20))
    assert "config.json of someone/model has 5.2 MB, too much to be what its name says" in sentence_of(hub)


@pytest.mark.parametrize("length", [1 << 50, (1 << 64) - 1, 26 << 20])
def test_a_header_of_weights_that_claims_the_world_is_refused(hub: FakeHub, length: int) -> None:
    (hub.folder / SINGLE_FILE).write_bytes(length.to_bytes(8, "little") + bytes(100_000))
    assert (
        sentence_of(hub) == "model.safetensors of someone/model is damaged on the Hub; choose another model"
    )


@pytest.mark.parametrize("header", [b"[" * 90_000, b"[]", b"7", b'{"a": 7}', b'{"a": {}}'], ids=len)
def test_a_header_that_is_no_table_is_refused(hub: FakeHub, header: bytes) -> None:
    (hub.folder / SINGLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header)
    assert (
        sentence_of(hub) == "model.safetensors of someone/model is damaged on the Hub; choose another model"
    )


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [Fault(hangs=True), Fault(pause_s=1, piece=10)], ids=["hangs", "drips"])
def test_a_hub_that_dawdles_is_given_up(hub: FakeHub, fault: Fault) -> None:
    hub.faults["digests"] = fault
    told = sentence_of(hub)
    assert told.startswith("someone/model is neither a directory nor in the cache, and the Hub (127.0.0.1:")
    assert told.endswith("cannot be reached (ReadTimeout); check the name and the network")


@pytest.mark.slow  # the library tries for seven seconds
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", [Fault(hangs=True), Fault(pause_s=1, piece=10)], ids=["hangs", "drips"])
def test_weights_that_do_not_come_are_given_up(tmp_path: Path, fault: Fault) -> None:
    folder = tmp_path / "deep" / "model"
    save_random_model(folder, max_shard_size="20KB")
    with open_hub(folder) as hub:
        hub.faults["model-00003-of-00008.safetensors"] = fault
        told = sentence_of(hub, within_s=20)
    assert told.startswith("model-00003-of-00008.safetensors of someone/model could not be downloaded (ReadT")
