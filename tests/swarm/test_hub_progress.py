"""What a person sees while something is fetched: bytes done and in total, on a terminal in one line."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.checkpoint.progress import SpokenProgress
from tests.swarm.hub import FakeHub, Fault, open_hub

WEIGHTS = "model.safetensors"
PROGRAM = """
import sys
from pathlib import Path
from huggingface_hub import constants
from swarm.checkpoint.hub import HubFiles
from swarm.checkpoint.progress import SpokenProgress
from swarm.say import say
constants.DOWNLOAD_CHUNK_SIZE = 16 << 10
say("starting")
files = HubFiles("someone/model", cache_dir=Path(sys.argv[1]), progress=SpokenProgress(say))
files.find("model.safetensors")
say("done")
"""


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(bytes(300_000))
    with open_hub(folder) as hub:
        yield hub


def run_on_a_terminal(hub: FakeHub, cache: Path, **variables: str) -> str:
    """All that the program writes to a terminal as its standard error."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "TERM": "xterm"} | variables
    command = [sys.executable, "-c", PROGRAM, str(cache)]
    with subprocess.Popen(command, env=environment, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 65_536):
                written += piece
        except OSError:  # so ends a terminal that nobody writes to any more
            pass
        assert process.wait() == 0
    os.close(ours)
    return written.decode()


def test_off_a_terminal_lines_come_after_two_seconds_and_then_less_and_less_often() -> None:
    clock, said = Clock(), list[str]()
    progress = SpokenProgress(said.append, clock)
    for second in range(200):
        clock.now_s = 100.0 + second
        progress("downloading x", second * 10**6, 200 * 10**6)
    done_mb = [int(re.fullmatch(r"downloading x: (\d+) of 200 MB", line)[1]) for line in said]  # type: ignore[index]
    assert done_mb == [2, 6, 14, 30, 62, 122, 182]


def test_small_and_unknown_sizes_are_told_as_well() -> None:
    clock, said = Clock(), list[str]()
    progress = SpokenProgress(said.append, clock)
    for what, done, total in (("a", 1_000, 300_000), ("b", 3_400_000, 0), ("asking c", 0, 0)):
        clock.now_s += 60
        progress(what, done, total)
    assert said == ["a: 1 of 300 kB", "b: 3.4 MB", "asking c"]


def test_what_takes_less_than_two_seconds_is_not_told() -> None:
    clock, said = Clock(), list[str]()
    progress = SpokenProgress(said.append, clock)
    clock.now_s += 1.9
    progress("downloading x", 1, 2)
    assert said == []


def test_on_a_terminal_one_line_changes_and_is_gone_at_the_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults[WEIGHTS] = Fault(pause_s=0.06)
    written = run_on_a_terminal(hub, tmp_path / "cache")
    lines = written.split("\r\n")
    assert [lines[0], lines[2:]] == ["starting", [""]], written
    *shown, last = lines[1].split("\r\x1b[K")
    assert last == "done"
    states = [
        re.fullmatch(r"downloading model\.safetensors: (\d+) of 300 kB", state) for state in shown if state
    ]
    assert len(states) >= 3, written
    assert all(states), written


def test_on_a_terminal_that_cannot_go_back_nothing_is_written_over(hub: FakeHub, tmp_path: Path) -> None:
    assert run_on_a_terminal(hub, tmp_path / "cache", TERM="dumb") == "starting\r\ndone\r\n"


@pytest.mark.slow  # it takes two seconds until something is told
def test_off_a_terminal_a_slow_download_is_told_in_lines(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults[WEIGHTS] = Fault(pause_s=0.15)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache")]
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told = r"starting\n(downloading model\.safetensors: \d+ of 300 kB\n)+done\n"
    assert re.fullmatch(told, done.stderr), done.stderr
