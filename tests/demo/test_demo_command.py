"""The demo as a person meets it: real processes, standard input and output, and every way to end it."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import find_marked_processes

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "demo"]
READY_S = 60.0
GONE_S = 10.0
NUM_SIGNALS, SIGNAL_EVERY_S = 50, 0.01  # longer than it takes to end: an impatient person
MESSAGES = b"What is Murmur?\nHow \xff can I contribute?\n"  # a byte that is no text is read all the same

pytestmark = pytest.mark.skipif(
    not (ROOT / "demo" / "model" / "model.safetensors").exists(), reason="the demo model is not there"
)


@dataclass(frozen=True)
class Place:
    """Where one demo runs: its processes have `mark` in their environment, and this temporary folder."""

    mark: str
    folder: Path

    def processes(self) -> dict[int, str]:
        """Command lines by process id."""
        return find_marked_processes(self.mark)

    def is_empty(self) -> bool:
        """Whether processes and files are gone soon."""
        deadline = time.monotonic() + GONE_S
        while (left := bool(self.processes() or any(self.folder.iterdir()))) and time.monotonic() < deadline:
            select.select([], [], [], 0.1)
        return not left


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place for a demo, and an end to what is left in it."""
    mark = f"MURMUR_DEMO_TEST={os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(*mark.split("=", 1))
    with tempfile.TemporaryDirectory(prefix="murmur-test-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Place(mark, Path(folder))
        for pid in find_marked_processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [*COMMAND, *options], input=MESSAGES, capture_output=True, timeout=READY_S, cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},  # strict, as where a language is set
    )  # fmt: skip
    return subprocess.CompletedProcess(
        ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode()
    )


@pytest.mark.slow
def test_answers_are_on_standard_output_and_a_lost_server_changes_nothing(place: Place) -> None:
    whole, failing = run(), run("--fail-server")
    assert (whole.returncode, failing.returncode) == (0, 0)
    answers = whole.stdout.splitlines()
    assert len(answers) == 2
    assert answers[0].startswith("Murmur is a chatbot")
    assert "/contribute" in answers[1]
    assert failing.stdout == whole.stdout
    assert "the answer goes on" in failing.stderr
    assert place.is_empty()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_nothing_is_left_or_said_however_often_the_demo_is_told_to_end(
    place: Place, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "ready after" in line:
                break
        for _ in range(NUM_SIGNALS):
            process.send_signal(number)
            time.sleep(SIGNAL_EVERY_S)
        assert process.wait(GONE_S) == code
        assert process.stderr.read() == ""
        assert place.is_empty()
    finally:
        process.kill()
        process.communicate()


class Terminal:
    """The demo in a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execv(sys.executable, COMMAND)
        self.seen = ""

    def say(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def wait_for(self, text: str, within_s: float = 20.0) -> str:
        """Read until `text` has come since the last call; returns what came before it."""
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{text!r} did not come: {self.seen[-600:]!r}"
            if select.select([self.screen], [], [], left_s)[0]:
                self.seen += os.read(self.screen, 4096).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def exit_code(self) -> int:
        """Wait for the demo's end."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


def test_a_person_can_talk_stop_an_answer_and_leave(place: Place) -> None:
    terminal = Terminal()
    terminal.wait_for("you> ", READY_S)
    terminal.say("What is Murmur?\n")
    terminal.wait_for("Murmur is a")
    terminal.say("\x03")
    terminal.wait_for("you> ")
    terminal.say("/nonsense\n")
    terminal.wait_for("There is no command `nonsense`")
    terminal.wait_for("you> ")
    terminal.say("/new\n")
    terminal.wait_for("you> ")
    terminal.say("How can I contribute?\n")
    terminal.wait_for("you are part of the swarm")
    terminal.wait_for("you> ")
    terminal.say("\x04")
    assert terminal.exit_code() == 0
    assert place.is_empty()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_chat_outlives_frozen_and_lost_processes_but_not_the_one_that_starts_them(place: Place) -> None:
    terminal = Terminal()
    servers = [int(pid) for pid in re.findall(r"process (\d+)", terminal.wait_for("you> ", READY_S))]
    zygote = parent_of(servers[0])
    (bootstrap,) = {pid for pid in place.processes() if parent_of(pid) == zygote} - set(servers)

    terminal.say("What is Murmur?\n")
    terminal.wait_for("Murmur is a")
    os.kill(servers[1], signal.SIGSTOP)
    terminal.wait_for("server 2 does not answer: ending it and starting another")
    assert terminal.wait_for("together they answer you").count("the answer goes on") == 1
    terminal.wait_for("you> ")

    os.kill(bootstrap, signal.SIGKILL)
    terminal.wait_for("the bootstrap node is gone; a new one takes its place")
    terminal.wait_for("the bootstrap node is back")
    os.kill(servers[2], signal.SIGKILL)
    terminal.wait_for("server 3 (blocks 5-7) is back")
    terminal.say("/new\nWhat is Murmur?\n")
    terminal.wait_for("together they answer you")
    terminal.wait_for("you> ")

    os.kill(zygote, signal.SIGKILL)
    terminal.wait_for("murmur demo: the demo's processes are gone")
    assert terminal.exit_code() == 2
    assert place.is_empty()
