"""The zygote, in real processes that import next to nothing."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GONE_S = 5.0
PARENT = """
import json, sys, time
from pathlib import Path
from demo.zygote import fork_zygote

folder, log = map(Path, sys.argv[1:])
zygote = fork_zygote(lambda order: time.sleep(60), folder.rmdir)
zygote.line.sendall(json.dumps({"start": "sleeper", "log": str(log)}).encode() + b"\\n")
started = json.loads(zygote.line.recv(4096))
print(zygote.pid, started["pid"], flush=True)
if sys.stdin.readline():
    zygote.end()
"""


class Parent:
    """A process with a zygote that runs one service, and whose last work is to remove a folder."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "folder"
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, self.folder, tmp_path / "log"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.zygote, self.service = map(int, self.process.stdout.readline().split())

    def leaves_nothing(self) -> bool:
        """Whether the folder and both processes are gone soon."""
        deadline = time.monotonic() + GONE_S
        while left := self.folder.exists() or is_alive(self.zygote) or is_alive(self.service):
            if time.monotonic() > deadline:
                break
            select.select([], [], [], 0.02)
        return not left


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_zygote_whose_parent_is_killed_ends_everything_and_cleans_up(
    tmp_path: Path, is_frozen: bool
) -> None:
    parent = Parent(tmp_path)
    if is_frozen:
        os.kill(parent.zygote, signal.SIGSTOP)
    with parent.process:
        parent.process.kill()
    assert parent.leaves_nothing()


def test_a_zygote_that_is_told_to_end_cleans_up(tmp_path: Path) -> None:
    parent = Parent(tmp_path)
    parent.process.communicate("end\n")
    assert parent.process.returncode == 0
    assert not parent.folder.exists()
    assert parent.leaves_nothing()


def test_the_end_of_a_zygote_that_was_killed_is_no_error(tmp_path: Path) -> None:
    parent = Parent(tmp_path)
    os.kill(parent.zygote, signal.SIGKILL)
    parent.process.communicate("end\n")
    assert parent.process.returncode == 0
    parent.folder.rmdir()
    assert parent.leaves_nothing()
