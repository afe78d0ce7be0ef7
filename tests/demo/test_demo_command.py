"""The demo as a person meets it: real processes, standard input and output, and every way to end it."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Marks the processes of one demo, and ends what is left of it."""
    name = f"MURMUR_DEMO_TEST={os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(*name.split("=", 1))
    yield name
    for pid in find_marked_processes(name):
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


def is_gone(mark: str) -> bool:
    deadline = time.monotonic() + GONE_S
    while (left := find_marked_processes(mark)) and time.monotonic() < deadline:
        select.select([], [], [], 0.1)
    return not left


def test_answers_are_on_standard_output_and_a_lost_server_changes_nothing(mark: str) -> None:
    whole, failing = run(), run("--fail-server")
    assert (whole.returncode, failing.returncode) == (0, 0)
    answers = whole.stdout.splitlines()
    assert len(answers) == 2
    assert answers[0].startswith("Murmur is a chatbot")
    assert "/contribute" in answers[1]
    assert failing.stdout == whole.stdout
    assert "the answer goes on" in failing.stderr
    assert is_gone(mark)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_is_left_or_said_however_often_the_demo_is_told_to_end(
    mark: str, number: signal.Signals, code: int
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
        assert is_gone(mark)
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

    def wait_for(self, text: str, within_s: float = 20.0) -> None:
        """Read until `text` has come since the last call."""
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{text!r} did not come: {self.seen[-600:]!r}"
            if select.select([self.screen], [], [], left_s)[0]:
                self.seen += os.read(self.screen, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]


def test_a_person_can_talk_stop_an_answer_and_leave(mark: str) -> None:
    terminal = Terminal()
    terminal.wait_for("you> ", READY_S)
    terminal.say("What is Murmur?\n")
    terminal.wait_for("Murmur is a")
    terminal.say("\x03")
    terminal.wait_for("you> ")
    terminal.say("/nonsense\n")
    terminal.wait_for("there is no command /nonsense")
    terminal.wait_for("you> ")
    terminal.say("How can I contribute?\n")
    terminal.wait_for("you are part of the swarm")
    terminal.wait_for("you> ")
    terminal.say("\x04")
    _, status = os.waitpid(terminal.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert is_gone(mark)
