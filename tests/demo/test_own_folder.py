"""The demo's own folder: where it is, and that it goes, at the latest with the next demo."""

import os
import tempfile
from pathlib import Path

import pytest

from demo.own_folder import MAX_LETTERS, PREFIX, OwnFolder, find_parent
from swarm.daemon import MAX_SOCKET_FOLDER_LETTERS
from swarm.passing_folder import LOCK


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


def test_the_folder_of_a_demo_that_was_killed_goes_with_the_next_demo(usual_folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=usual_folder) as parent:
        gone = Path(parent, f"{PREFIX}gone")
        (gone / "murmur-1").mkdir(parents=True)
        (gone / "murmur-1" / "identity.key").touch()
        (gone / LOCK).touch()
        tempfile.tempdir = parent
        own = OwnFolder()
        made = own.make()
        assert list(Path(parent).iterdir()) == [made]
        own.remove()


def test_a_folder_whose_path_is_unfit_for_sockets_gives_way_to_tmp() -> None:
    assert MAX_LETTERS == MAX_SOCKET_FOLDER_LETTERS
    longest = Path("/" + "x" * (MAX_LETTERS - len(f"//{PREFIX}12345678")))
    assert find_parent(longest) == longest
    assert find_parent(Path(f"{longest}x")) == find_parent(Path("/tmp/h\u00f6r")) == Path("/tmp")
