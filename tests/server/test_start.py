"""`./murmur serve` as a process: mistakes are told at once, and a signal ends it cleanly at any moment."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.models import make_model

LOCAL = ("--new-swarm", "--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--kv-tokens", "999")
ANSWER_S = 3.0  # telling takes 0.1 s; on a busy machine torch and hivemind alone take longer than this
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"), "llama")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command with a home of its own; what was started ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*options: str) -> "subprocess.Popen[str]":
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "server", *options]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield start_one
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("/nowhere", *LOCAL), "is neither a directory nor the name of a model on the Hub; check the path"),
        (("MODEL", "--initial-peers", "nonsense"), "'nonsense' is no multiaddress"),
        (("MODEL", *LOCAL, "--blocks", "5:2"), "--blocks: "),
        (("MODEL", *LOCAL, "--threads", "0"), "--threads must be 1 or more, not 0"),
        (("MODEL", "--new-swarm", "--host-maddrs", "here"), "'here' is no address to listen at"),
        (("MODEL", *LOCAL, "--ready-file", "/nowhere/ready"), "there is no such folder"),
    ],
)
def test_a_mistake_is_told_before_anything_slow_is_imported(
    options: tuple[str, ...], words: str, model: Path, start: Start
) -> None:
    began = time.monotonic()
    process = start(*(str(model) if word == "MODEL" else word for word in options))
    said, complained = process.communicate(timeout=20)
    assert (process.returncode, said) == (2, "")
    assert complained.startswith("murmur serve: ")
    assert words in complained
    assert complained.count("\n") == 1
    assert time.monotonic() - began < ANSWER_S


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("starting", signal.SIGINT),
        pytest.param("starting", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("starting a swarm", signal.SIGINT, marks=pytest.mark.slow),
        ("hosting blocks", signal.SIGTERM),
        pytest.param("checking that", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("measuring", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("reached at", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_it_starts_ends_it_with_0_and_without_a_traceback(
    sentence: str, number: signal.Signals, model: Path, start: Start
) -> None:
    process = start(str(model), *LOCAL)
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if line.startswith(sentence):
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)
    assert heard[-1].startswith(sentence), heard
    assert process.returncode == 0
    assert "Traceback" not in rest
    assert "Error" not in rest


@pytest.mark.slow
def test_it_says_what_computes_and_remembers_its_speed_for_that_alone(
    model: Path, start: Start, tmp_path: Path
) -> None:
    for num_threads, words in ((1, "the CPU with 1 thread"), (2, "the CPU with 2 threads")):
        process = start(str(model), *LOCAL, "--device", "cpu", "--threads", str(num_threads))
        assert process.stderr is not None
        heard = []
        for line in process.stderr:
            heard.append(line.rstrip("\n"))
            if line.startswith("online as"):
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert [line.partition(";")[0] for line in heard if line.startswith("computing")] == [
            f"computing on {words}"
        ]
    remembered = json.loads((tmp_path / ".cache" / "murmur" / "throughput.json").read_text())
    assert sorted(json.loads(key)["device"] for key in remembered) == [
        "the CPU with 1 thread", "the CPU with 2 threads",
    ]  # fmt: skip
