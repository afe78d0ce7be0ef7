"""Files from the Hub: taken up where they broke off, checked, of one version, and only if there is room."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download

from swarm.checkpoint import Checkpoint
from swarm.checkpoint.hub import HubFiles
from swarm.checkpoint.hub_troubles import disk_trouble
from swarm.errors import ConfigError
from tests.end_to_end.small_disks import with_small_disks
from tests.swarm.checkpoints import save_random_model
from tests.swarm.hub import COMMIT, NEXT_COMMIT, REPOSITORY, FakeHub, Fault, open_hub

WEIGHTS = "model.safetensors"
SIZE = 300_000
CHUNK_BYTES = 25_000
FIND = """
import sys
from pathlib import Path
from swarm.checkpoint.hub import HubFiles
from swarm.errors import ConfigError
try:
    HubFiles("someone/model", cache_dir=Path(sys.argv[1])).find("model.safetensors")
except ConfigError as error:
    print(error)
"""
FIND_WITH_LIMIT = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
{FIND}"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(os.urandom(SIZE))
    (folder / "config.json").write_text('{"model_type": "x"}')
    with open_hub(folder) as hub:
        yield hub


@pytest.fixture
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library keeps whole chunks of what arrived; its own are of 10 MB."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK_BYTES)


def files_of(hub: FakeHub, **arguments: Any) -> HubFiles:
    return HubFiles(REPOSITORY, cache_dir=cache_of(hub), endpoint=hub.endpoint, **arguments)


def cache_of(hub: FakeHub) -> Path:
    return hub.folder.parent / "cache"


def blobs(hub: FakeHub) -> dict[str, int]:
    """Names and sizes of all that lies where blobs lie."""
    return {path.name: path.stat().st_size for path in cache_of(hub).glob("*/blobs/*")}


def ranges(hub: FakeHub) -> list[str]:
    return [part for method, name, part in hub.requests if (method, name) == ("GET", WEIGHTS)]


def is_right(hub: FakeHub, path: Path | None) -> bool:
    return path is not None and path.read_bytes() == (hub.folder / path.name).read_bytes()


def find_in_a_process(hub: FakeHub, cache: Path, program: str, within: Sequence[str] = ()) -> str:
    """What a process says that looks for the weights."""
    command = [*within, sys.executable, "-c", program, str(cache)]
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_chunks")
def test_a_broken_connection_is_taken_up_where_it_broke(hub: FakeHub) -> None:
    hub.faults[WEIGHTS] = Fault(cut=110_000, times=1)
    assert is_right(hub, files_of(hub).find(WEIGHTS))
    assert ranges(hub) == ["", "bytes=100000-"]
    assert hub.sent[WEIGHTS] == SIZE + 10_000


@pytest.mark.slow  # the library tries for six seconds
@pytest.mark.usefixtures("_small_chunks")
def test_a_file_that_does_not_come_to_its_end_is_told_and_the_next_start_has_it(hub: FakeHub) -> None:
    hub.faults[WEIGHTS] = Fault(cut=1000)
    with pytest.raises(ConfigError, match=r"^model.safetensors of .* could not be downloaded \(\w+\); check"):
        files_of(hub).find(WEIGHTS)
    hub.faults.clear()
    assert is_right(hub, files_of(hub).find(WEIGHTS))
    assert list(blobs(hub).values()) == [SIZE]


def test_two_that_want_the_same_file_download_it_once(hub: FakeHub) -> None:
    hub.faults[WEIGHTS] = Fault(pause_s=0.02)
    found: list[Path | None] = []
    threads = [threading.Thread(target=lambda: found.append(files_of(hub).find(WEIGHTS))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [is_right(hub, path) for path in found] == [True, True]
    assert hub.sent[WEIGHTS] == SIZE


# --- digests and versions -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_that_differs_from_its_digest_is_refused_and_deleted(hub: FakeHub, name: str) -> None:
    hub.lie = {name}
    with pytest.raises(ConfigError, match=f"{name} was damaged on its way and is deleted again; start once"):
        files_of(hub).find(name)
    assert blobs(hub) == {}
    hub.lie = set()
    assert is_right(hub, files_of(hub).find(name))


def test_a_model_that_changes_meanwhile_is_read_in_its_old_version(hub: FakeHub, tmp_path: Path) -> None:
    files = files_of(hub)
    assert is_right(hub, files.find("config.json"))
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / WEIGHTS).write_bytes(b"new")
    (changed / "config.json").write_text("new")
    hub.add(REPOSITORY, changed, NEXT_COMMIT)
    assert is_right(hub, files.find(WEIGHTS))
    assert files.digest(WEIGHTS) == hashlib.sha256((hub.folder / WEIGHTS).read_bytes()).hexdigest()
    later = files_of(hub).find(WEIGHTS)
    assert later is not None
    assert later.read_bytes() == b"new"


def test_a_blob_in_the_store_that_models_share_keeps_its_digest(hub: FakeHub) -> None:
    """The library names what it fetched in chunks by the hash of the chunks, one more link away."""
    path = files_of(hub).find(WEIGHTS)
    assert path is not None
    blob = path.resolve()
    shared = cache_of(hub) / "shared" / ("e" * 64)
    shared.parent.mkdir()
    blob.rename(shared)
    blob.symlink_to(shared)
    assert is_right(hub, files_of(hub).find(WEIGHTS))
    assert files_of(hub, offline=True).digest(WEIGHTS) == hashlib.sha256(shared.read_bytes()).hexdigest()


def test_the_cache_is_one_with_that_of_the_hubs_own_programs(hub: FakeHub) -> None:
    path = files_of(hub).find(WEIGHTS)
    hub.requests.clear()
    arguments: Any = {"cache_dir": cache_of(hub), "endpoint": hub.endpoint, "revision": COMMIT}
    assert hf_hub_download(REPOSITORY, WEIGHTS, **arguments) == str(path)
    assert hub.requests == []


# --- room -----------------------------------------------------------------------------------------


def test_files_that_do_not_fit_are_refused_before_the_first(tmp_path: Path) -> None:
    save_random_model(tmp_path / "hub", max_shard_size="20KB")
    disk = os.statvfs(tmp_path)
    with open_hub(tmp_path / "hub") as hub:
        names = sorted(path.name for path in hub.folder.glob("*.safetensors"))
        listed = [{"rfilename": name, "size": disk.f_bavail * disk.f_frsize // 2} for name in names]
        hub.listed = [*listed, {"rfilename": "config.json"}]
        checkpoint = Checkpoint(files_of(hub))
        needed = (
            r"^downloading 8 files of someone/model takes [\d,.]+ GB more, and the disk of .* GB left; make"
        )
        with pytest.raises(ConfigError, match=needed):
            checkpoint.read(checkpoint.tensor_names())
        assert hub.weights_sent() == {}


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_next_start_works(hub: FakeHub) -> None:
    """A limit on the size of files breaks off the write as a full disk does: in the middle.

    Of the connection that broke before nothing is said: the library would, in words of its own.
    """
    hub.faults[WEIGHTS] = Fault(cut=1000, times=1)
    said = find_in_a_process(hub, cache_of(hub), FIND_WITH_LIMIT)
    full = r"the disk of \S+ is full while downloading model.safetensors; make room or move HF_HOME\n"
    assert re.fullmatch(full, said), said
    assert is_right(hub, files_of(hub).find(WEIGHTS))


def test_a_disk_that_is_really_full_is_told(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "disks" / "full").mkdir(parents=True)
    (small := tmp_path / "disks" / "small").mkdir()
    within = with_small_disks(tmp_path / "disks")
    if not within:
        pytest.skip("no disk can be made small: user namespaces are not allowed here")
    said = find_in_a_process(hub, small / "cache", FIND, within)
    assert said.startswith(
        f"the disk of {small}/cache is full while downloading model.safetensors; make room"
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("Io: No space left on device (os error 28)"), "the disk of /cache is full while down"),
        (
            PermissionError(13, "Permission denied", "/cache/x"),
            "/cache/x cannot be used; fix its permissions",
        ),
    ],
    ids=str,
)
def test_troubles_of_the_disk_are_told(error: Exception, sentence: str) -> None:
    assert str(disk_trouble(error, Path("/cache"), "x")).startswith(sentence)
