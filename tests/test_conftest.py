"""The fixtures that guard the other tests can fail, and CI does not forgive it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import find_marked_processes
from tests.test_launcher import FAKE_PYTHON, Launcher

CONFTEST = Path(__file__).with_name("conftest.py")


@pytest.fixture
def marked_orphan() -> Iterator[tuple[str, int]]:
    """A mark and the id of a process that carries it and lost its parent; the process ends with the test."""
    mark = f"MURMUR_TEST_ORPHAN={os.getpid()}"
    child = "import sys; print(1, flush=True); sys.stdin.read()"
    parent = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True)"
    )
    name, _, value = mark.partition("=")
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        env={**os.environ, name: value},
        stdin=subprocess.PIPE,  # the orphan reads it too: closing it ends the orphan
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        process.wait()
        yield mark, max(int(line) for line in lines)


def test_an_orphan_is_found_by_its_mark(marked_orphan: tuple[str, int]) -> None:
    mark, process_id = marked_orphan
    assert list(find_marked_processes(mark)) == [process_id]


def run_pytest(folder: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `test` under this project's conftest in a folder of its own."""
    (folder / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "test_it.py").write_text(test, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "asyncio_mode=auto",
        str(folder),
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=50, check=False)


def test_a_run_that_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    start = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    done = run_pytest(tmp_path, f"import subprocess, sys\ndef test(): {start}\n")
    assert done.returncode == 1, done.stdout
    assert "processes outlived the tests" in done.stdout


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_call_that_blocks_the_loop_fails_its_test(tmp_path: Path, loop: str) -> None:
    policy = f"import asyncio, pytest, time, {loop}\n"
    if loop == "uvloop":
        policy += "@pytest.fixture\ndef event_loop_policy(): return uvloop.EventLoopPolicy()\n"
    done = run_pytest(tmp_path, policy + "async def test(unblocked_loop): time.sleep(0.15)\n")
    assert "the loop was blocked" in done.stdout, done.stdout
    fine = run_pytest(tmp_path, policy + "async def test(unblocked_loop): await asyncio.sleep(0.15)\n")
    assert fine.returncode == 0, fine.stdout


def test_of_files_side_by_side_the_longest_begin(tmp_path: Path) -> None:
    marks = "import pytest\nM = [pytest.mark.slow]\nN = []\n"
    (tmp_path / "demo").mkdir()
    files = (("a", "N", 1), ("b", "N", 3), ("c", "M", 1), ("d", "M", 2), ("demo/e", "N", 1))
    for name, slow, num_tests in files:
        case = f"@pytest.mark.parametrize('n', [pytest.param(n, marks={slow}) for n in range({num_tests})])\n"
        (tmp_path / re.sub(r"(\w)$", r"test_\1.py", name)).write_text(marks + case + "def test(n): pass\n")
    side_by_side = ("-n1", "--dist", "loadfile", "--no-loadscope-reorder", "-vv", "-o", "markers=slow: long")
    done = run_pytest(tmp_path, "", *side_by_side)
    assert re.findall(r"PASSED \S*test_(\w)\.py", done.stdout) == list("ddcebbba"), done.stdout


HYPOTHESIS = (
    "import asyncio, time\nfrom hypothesis import given, settings\nfrom hypothesis import strategies as st\n"
)


def test_an_example_may_take_its_time(tmp_path: Path) -> None:
    slow = "@settings(max_examples=2)\n@given(st.booleans())\ndef test(_): time.sleep(0.3)\n"
    done = run_pytest(tmp_path, HYPOTHESIS + slow)
    assert done.returncode == 0, done.stdout


def test_an_example_that_hangs_whenever_it_is_repeated_fails_its_test(tmp_path: Path) -> None:
    hanging = "@given(st.just(0))\nasync def test(_): await asyncio.Event().wait()\n"
    done = run_pytest(tmp_path, HYPOTHESIS + hanging, "--timeout=0.5")
    assert done.returncode == 1, done.stdout
    assert "Timeout" in done.stdout


# --- CI -------------------------------------------------------------------------------------------

PYTEST_THAT_FAILS_ONCE = """\
    "-m pytest")
        echo >>"$FAKE/runs"
        (($(wc -l <"$FAKE/runs") % 2)) || { echo "=== 1 passed in 0.10s ==="; exit 0; }
        cat "$FAKE/said"
        exit 1 ;;
"""
A_TEST_FAILED = "FAILED tests/test_it.py::test - assert 0\n"
LEFT_BEHIND = "E   AssertionError: processes outlived the tests: {7: 'p2pd'}\n"
CRASHED = "worker 'gw0' crashed while running 'tests/test_it.py::test'\n"
BROKEN_OFF = "!!!!!!!!!! KeyboardInterrupt !!!!!!!!!!\n"


def test_ci_repeats_tests_that_failed_but_no_failure_of_the_run_itself(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path)
    script = re.sub(r'    "-m pytest"\).*?;;\n', lambda _: PYTEST_THAT_FAILS_ONCE, FAKE_PYTHON, flags=re.S)
    for python in launcher.state.iterdir():
        python.write_text(script, encoding="utf-8")

    def ended(said: str) -> tuple[int, int, list[str]]:
        """How CI ends if pytest says that at first: its exit code, how often pytest ran, and the end."""
        (launcher.state / "runs").write_text("")
        (launcher.state / "said").write_text(f"{said}=== 1 failed, 2 passed in 0.10s ===\n")
        code, output, _ = launcher.run(command=".ci/run")
        return code, len((launcher.state / "runs").read_text()), output.splitlines()[-3:]

    first, second = "tests: === 1 failed, 2 passed in 0.10s ===", "tests: === 1 passed in 0.10s ==="
    assert ended(A_TEST_FAILED) == (0, 2, [first, second, "exit status: 0"])
    for said in (LEFT_BEHIND, CRASHED, BROKEN_OFF):
        code, num_runs, (*_, summary, status) = ended(A_TEST_FAILED + said)
        assert (code, num_runs, summary, status) == (1, 1, first, "exit status: 1"), said
