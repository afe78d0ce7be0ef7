"""Folders that go with their process: at its end, or, if it was killed, when the next one starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.passing_folder import LOCK, PREFIX, passing_folder, sweep

HOLDER = """
import sys, pathlib
from swarm.passing_folder import passing_folder
with passing_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "identity.key").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_ours_alone_and_gone_after_the_block(tmp_path: Path) -> None:
    with passing_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "identity.key").touch()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        left = Path(holder.stdout.readline().strip())
        with passing_folder(tmp_path):
            assert (left / "identity.key").exists(), "its process lives"
        holder.kill()
    assert (left / "identity.key").exists()
    with passing_folder(tmp_path) as ours:
        assert list(tmp_path.iterdir()) == [ours]


def test_what_only_looks_like_such_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / LOCK).touch()
    link, without_lock, file = (tmp_path / f"{PREFIX}{name}" for name in ("link", "notes", "file"))
    link.symlink_to(tmp_path / "elsewhere")
    without_lock.mkdir()
    file.touch()
    sweep(tmp_path)
    assert all(path.exists() for path in (link / LOCK, without_lock, file))


def test_other_peoples_folders_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / f"{PREFIX}theirs"
    folder.mkdir()
    (folder / LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    sweep(tmp_path)
    assert folder.exists()
