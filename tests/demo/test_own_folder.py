"""The demo's own folder: where it is, and whose folders are swept."""

import os
import tempfile
from pathlib import Path

import pytest

from demo.own_folder import LOCK, MAX_LETTERS, PREFIX, OwnFolder, find_parent, make_locked, sweep
from swarm.transport import MAX_SOCKET_FOLDER_LETTERS


def abandoned(parent: Path, name: str = "gone") -> Path:
    """What a demo leaves that is killed with all its processes: nobody holds the lock any more."""
    folder = parent / f"{PREFIX}{name}"
    (folder / "murmur-1").mkdir(parents=True)
    (folder / "murmur-1" / "identity.key").touch()
    (folder / LOCK).touch()
    return folder


@pytest.fixture
def usual_folder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Has the folder for temporary files set back after the test."""
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setenv("TMPDIR", "/tmp")
    return Path("/tmp")


def test_everything_temporary_goes_into_the_own_folder_and_with_it(usual_folder: Path) -> None:
    own = OwnFolder()
    own.remove()  # there is nothing yet
    folder = own.make()
    assert folder.parent == usual_folder
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(folder), str(folder))
    Path(tempfile.mkdtemp(), "identity.key").touch()
    own.remove()
    assert not folder.exists()


def test_folders_of_demos_that_are_gone_are_swept(tmp_path: Path) -> None:
    gone, living = abandoned(tmp_path), make_locked(tmp_path)
    sweep(tmp_path)
    assert not gone.exists()
    assert (living / LOCK).exists()


def test_what_only_looks_like_a_demos_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = abandoned(tmp_path / "elsewhere")
    link, without_lock, file = (tmp_path / f"{PREFIX}{name}" for name in ("link", "notes", "file"))
    link.symlink_to(target)
    without_lock.mkdir()
    file.touch()
    sweep(tmp_path)
    assert all(path.exists() for path in (link, target / LOCK, without_lock, file))


def test_other_peoples_folders_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = abandoned(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    sweep(tmp_path)
    assert (folder / LOCK).exists()


def test_a_folder_whose_path_is_unfit_for_sockets_gives_way_to_tmp() -> None:
    assert MAX_LETTERS == MAX_SOCKET_FOLDER_LETTERS
    longest = Path("/" + "x" * (MAX_LETTERS - len(f"//{PREFIX}12345678")))
    assert find_parent(longest) == longest
    assert find_parent(Path(f"{longest}x")) == find_parent(Path("/tmp/h\u00f6r")) == Path("/tmp")
