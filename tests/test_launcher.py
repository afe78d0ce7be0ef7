"""./murmur: finds a Python, installs once, survives interruptions, and becomes the part that is named.

A copy of the launcher runs in a folder whose name has spaces, with a Python in the path that is no Python but
a script: it makes "environments" that are copies of itself and writes down what pip was asked for.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
STEP_S = 20.0  # far more than any step takes; a launcher that hangs fails its test

FAKE_PYTHON = f"""#!/usr/bin/env bash
case "$1 ${{2:-}}" in
    "-c "*sys.executable*) echo "$0" ;;
    "-c "*sys.version_info*) [[ ! -e $FAKE/unsupported ]] ;;
    "-c "*fcntl*) exec {sys.executable!r} "$@" ;;
    "-m venv") [[ ! -e $FAKE/no-venv ]] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        echo "${{@: -1}}" >>"$FAKE/pip"
        echo "Collecting torch<2.14,>=2.6 (from murmur==0.1.0)"
        while [[ -e $FAKE/hold ]]; do sleep 0.05; done
        [[ ! -e $FAKE/offline ]] || {{ echo "ERROR: No matching distribution found for torch"; exit 1; }} ;;
    "-m ruff" | "-m mypy" | "-c "*importlinter*)
        echo "${{@:2}}" >>"$FAKE/checks"
        [[ ! -e $FAKE/bad-$2 ]] || {{ echo "a complaint"; exit 1; }} ;;
    "-m tests.peers")
        [[ -z ${{PYTHONSAFEPATH:-}} && -f murmur ]] || {{ echo "No module named 'tests'" >&2; exit 1; }}
        echo "${{@:3}}" >>"$FAKE/peers"
        [[ ! -e $FAKE/no-peers ]] || {{ echo "peers: synapse cannot be installed" >&2; exit 1; }} ;;
    "-m pytest")
        shift 2
        printf '[%s]' "$@" ${{PYTHONDONTWRITEBYTECODE:+"keeps nothing"}}
        printf '\\n=== 3 passed in 0.10s ===\\n' ;;
    *) printf '%s\\n' "$PWD" "$@" ;;
esac
"""


@dataclass
class Launcher:
    """A copy of the launcher, with the fake Python first in the path."""

    folder: Path
    home: Path = field(init=False)
    state: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home, self.state = self.folder / "a folder", self.folder / "state"
        (self.home / ".ci").mkdir(parents=True)
        self.state.mkdir()
        for name in ("murmur", "pyproject.toml", ".ci/run"):
            shutil.copy(REPOSITORY / name, self.home / name)
        for name in ("python3.11", "python3.12", "python3", "python"):
            (self.state / name).write_text(FAKE_PYTHON, encoding="utf-8")
            (self.state / name).chmod(0o755)

    def start(self, *arguments: str, command: str = "murmur") -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "MURMUR_PYTHON"}
        return subprocess.Popen(
            [str(self.home / command), *arguments],
            env={
                **environment,
                "PYTHONDONTWRITEBYTECODE": "1",
                "FAKE": str(self.state),
                "PATH": f"{self.state}:{environment['PATH']}",
            },
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=obey_interrupts,
        )

    def run(self, *arguments: str, command: str = "murmur") -> tuple[int, str, str]:
        """Status, standard output and standard error."""
        with self.start(*arguments, command=command) as process:
            output, errors = process.communicate(timeout=STEP_S)
        return process.returncode, output, errors

    def set(self, switch: str) -> None:
        (self.state / switch).touch()

    def clear(self, switch: str) -> None:
        (self.state / switch).unlink()

    def pip_calls(self) -> list[str]:
        """What each `pip install` was asked to install, in order."""
        file = self.state / "pip"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def peer_calls(self) -> list[str]:
        """What each installation of the tests' peers was told, in order."""
        file = self.state / "peers"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def started_installing(self) -> subprocess.Popen[str]:
        """A start that is in the middle of an installation, which goes on until `hold` is cleared."""
        self.set("hold")
        already = len(self.pip_calls())
        process = self.start("demo")
        wait_until(lambda: len(self.pip_calls()) > already)
        return process


def obey_interrupts() -> None:
    """A test run in the background ignores Ctrl-C, and what a shell was told to ignore it cannot trap."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STEP_S
    while not is_done():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    launcher = Launcher(tmp_path)
    yield launcher
    (launcher.state / "hold").unlink(missing_ok=True)  # ends a pip that was left alone


def test_help_needs_no_installation_and_names_every_command(launcher: Launcher) -> None:
    listed = re.search(
        r'^commands="([^"]*)"', (REPOSITORY / "murmur").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed is not None
    status, text, errors = launcher.run()
    assert (status, errors) == (0, "")
    assert [name for name in listed[1].split() if name != "help" and f"\n  {name} " not in text] == []
    assert launcher.run("--help") == launcher.run("help") == (0, text, "")
    assert not (launcher.home / ".venv").exists()


@pytest.mark.parametrize(("typed", "meant"), [("sevre", "serve"), ("stats", "status"), ("tset", "test")])
def test_an_unknown_command_is_answered_with_the_nearest_one(
    launcher: Launcher, typed: str, meant: str
) -> None:
    status, output, errors = launcher.run(typed)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"./murmur {meant}" in errors


def test_an_unknown_command_cannot_write_to_the_terminal_or_fill_it(launcher: Launcher) -> None:
    _, _, errors = launcher.run("\x1b[31m" + 1000 * "x")
    assert "\x1b" not in errors
    assert len(errors) < 250


STREAMS = """
import os, sys
print([os.path.exists(f"/dev/fd/{n}") for n in range(3)], file=open(os.environ["FAKE"] + "/seen", "w"))
"""


def test_standard_streams_that_were_closed_lead_nowhere_and_to_no_file(launcher: Launcher) -> None:
    assert launcher.run("demo")[0] == 0
    python = launcher.home / ".venv" / "bin" / "python"
    python.write_text(f"#!/usr/bin/env bash\n{sys.executable} -c '{STREAMS}'\n", encoding="utf-8")
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        command = f"exec {shlex.quote(str(launcher.home / 'murmur'))} demo {closed}"
        subprocess.run(
            ["bash", "-c", command],
            env=os.environ | {"FAKE": str(launcher.state)},
            timeout=STEP_S,
            check=True,
        )
        assert (launcher.state / "seen").read_text(encoding="utf-8") == "[True, True, True]\n", closed
        (launcher.state / "seen").unlink()


def test_the_first_start_installs_and_the_second_does_not(launcher: Launcher) -> None:
    status, output, errors = launcher.run("serve", "a model", "--num-blocks", "2")
    assert (status, output.splitlines()) == (
        0,
        [str(launcher.folder), "-m", "server", "a model", "--num-blocks", "2"],
    )
    assert re.search(r"installing into .venv.*\n(murmur: \[0 s\] .*\n)?murmur: installed in \d+ s\n$", errors)
    assert launcher.run("status")[1:] == (f"{launcher.folder}\n-m\nswarm\nstatus\n", "")
    assert launcher.pip_calls() == [str(launcher.home)]


def test_an_installation_says_what_it_is_at(launcher: Launcher) -> None:
    with launcher.started_installing() as process:
        assert process.stderr is not None
        assert "installing into .venv" in process.stderr.readline()
        assert re.match(r"murmur: \[\d+ s\] (starting pip|looking up torch<2.14)", process.stderr.readline())
        launcher.clear("hold")
        process.communicate(timeout=STEP_S)
        assert process.returncode == 0


def test_a_later_start_adds_less_than_a_second(launcher: Launcher) -> None:
    launcher.run("demo")
    took_s = []
    for _ in range(3):
        start = time.monotonic()
        launcher.run("demo")
        took_s.append(time.monotonic() - start)
    assert min(took_s) < 1.0


def test_a_link_to_the_launcher_works(launcher: Launcher) -> None:
    (launcher.home / "link").symlink_to(launcher.home / "murmur")
    assert launcher.run("demo", command="link")[0] == 0
    assert launcher.pip_calls() == [str(launcher.home)]


def test_new_dependencies_and_a_new_place_are_installed_and_new_lint_rules_are_not(
    launcher: Launcher,
) -> None:
    launcher.run("demo")
    project = launcher.home / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    project.write_text(text.replace("line-length = 110", "line-length = 120"), encoding="utf-8")
    launcher.run("demo")
    assert len(launcher.pip_calls()) == 1
    project.write_text(text.replace('"msgspec",', '"msgspec", "tomlkit",'), encoding="utf-8")
    launcher.run("demo")
    assert len(launcher.pip_calls()) == 2
    launcher.home = launcher.home.rename(launcher.folder / "elsewhere")
    launcher.run("demo")
    assert launcher.pip_calls()[2:] == [str(launcher.home)]


def test_two_starts_at_once_install_once(launcher: Launcher) -> None:
    with launcher.started_installing() as first, launcher.start("demo") as second:
        assert second.stderr is not None
        assert "another start is installing" in second.stderr.readline()
        launcher.clear("hold")
        assert (first.wait(STEP_S), second.wait(STEP_S)) == (0, 0)
        second.communicate()
        first.communicate()
    assert len(launcher.pip_calls()) == 1


@pytest.mark.parametrize(
    ("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_installation_is_made_afresh(
    launcher: Launcher, ending: signal.Signals, status: int
) -> None:
    with launcher.started_installing() as process:
        (launcher.home / ".venv/half-a-package").touch()
        process.send_signal(ending)
        assert process.wait(STEP_S) == status
        launcher.clear("hold")  # after SIGKILL pip goes on alone and keeps the lock until its end
    status, _, errors = launcher.run("demo")
    assert status == 0
    assert "starting afresh" in errors
    assert not (launcher.home / ".venv/half-a-package").exists()


def test_a_failed_installation_says_what_to_do_and_is_tried_again(launcher: Launcher) -> None:
    launcher.set("offline")
    status, output, errors = launcher.run("demo")
    assert (status, output) == (1, "")
    assert "No matching distribution found for torch" in errors
    assert "run the same command again" in errors
    launcher.clear("offline")
    assert launcher.run("demo")[0] == 0


@pytest.mark.parametrize(
    ("missing", "status", "advice"), [("unsupported", 2, "3.11 or 3.12"), ("no-venv", 1, "python3-venv")]
)
def test_without_a_fitting_python_one_sentence_says_so(
    launcher: Launcher, missing: str, status: int, advice: str
) -> None:
    launcher.set(missing)
    ended, output, errors = launcher.run("demo")
    assert (ended, output) == (status, "")
    assert advice in errors.splitlines()[-1]
    assert launcher.pip_calls() == []


def test_an_environment_of_another_python_is_not_touched(launcher: Launcher) -> None:
    binaries = launcher.home / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    (binaries / "python").chmod(0o755)
    status, _, errors = launcher.run("demo")
    assert (status, errors.count("\n")) == (2, 1)
    assert "delete it" in errors
    assert launcher.pip_calls() == []


def test_checks_need_the_developers_tools_and_one_failure_hides_no_other(launcher: Launcher) -> None:
    assert launcher.run("check")[:2] == (
        0,
        "ruff format    ok\nruff check     ok\nmypy           ok\nlint-imports   ok\n",
    )
    assert launcher.pip_calls() == [f"{launcher.home}[dev]"]
    launcher.set("bad-ruff")
    status, output, _ = launcher.run("check")
    assert status == 1
    assert re.findall(r"^(.+?) +(ok|FAILED)$", output, re.MULTILINE) == [
        ("ruff format", "FAILED"),
        ("ruff check", "FAILED"),
        ("mypy", "ok"),
        ("lint-imports", "ok"),
    ]
    assert output.count("a complaint") == 2
    assert launcher.run("demo")[0] == 0
    assert len(launcher.pip_calls()) == 1


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ([], ["ruff format --quiet --diff .", "ruff check --quiet ."]),
        (["--fix"], ["ruff format --quiet .", "ruff check --quiet --fix ."]),
    ],
)
def test_checks_change_files_only_if_they_are_to_fix(
    launcher: Launcher, given: list[str], asked: list[str]
) -> None:
    assert launcher.run("check", *given)[0] == 0
    assert (launcher.state / "checks").read_text(encoding="utf-8").splitlines()[:2] == asked


CORES = os.cpu_count() or 1
SIDE_BY_SIDE = "[--dist][loadfile][--no-loadscope-reorder]"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([], f"[-m][not slow][-n][{min(4, CORES + 1)}]{SIDE_BY_SIDE}"),
        (["--all"], f"[-n][{min(4, CORES)}]{SIDE_BY_SIDE}[-o][asyncio_debug=true]"),
        (["--all", "-x"], "[-x][-o][asyncio_debug=true]"),
        (["tests/a b.py", "-k", "c d"], "[-m][not slow][tests/a b.py][-k][c d]"),
        (["-m", "gpu", "--all"], "[-m][gpu][-o][asyncio_debug=true]"),
    ],
)
def test_tests_follow_the_checks_and_slow_ones_wait_for_all(
    launcher: Launcher, given: list[str], passed_on: str
) -> None:
    status, output, _ = launcher.run("test", *given)
    assert status == 0
    assert output.splitlines()[3:5] == ["lint-imports   ok", passed_on]


@pytest.mark.parametrize(
    ("arguments", "installed", "status"),
    [([], [], 0), (["--peers", "-x"], ["--within 300"], 0), (["--all"], [""], 1)],
)
def test_real_peers_are_installed_when_asked_for_and_only_all_insists(
    launcher: Launcher, arguments: list[str], installed: list[str], status: int
) -> None:
    assert launcher.run("test", *arguments)[0] == 0
    assert launcher.peer_calls() == installed
    launcher.set("no-peers")
    ended, output, _ = launcher.run("test", *arguments)
    assert (ended, "3 passed" in output, "peers" in output) == (status, True, False)


def test_a_failed_check_fails_the_test_command_and_the_tests_still_run(launcher: Launcher) -> None:
    launcher.set("bad-mypy")
    status, output, _ = launcher.run("test")
    assert status == 1
    assert "3 passed" in output


def test_ci_ends_with_the_summary_and_the_status_of_the_tests(launcher: Launcher) -> None:
    status, output, _ = launcher.run(command=".ci/run")
    assert (status, output.splitlines()[-2:]) == (0, ["tests: === 3 passed in 0.10s ===", "exit status: 0"])
    launcher.set("bad-mypy")
    status, output, _ = launcher.run(command=".ci/run")
    assert (status, output.splitlines()[-1]) == (1, "exit status: 1")


def test_ci_installs_real_peers_and_does_without_if_it_must(launcher: Launcher) -> None:
    launcher.set("no-peers")
    status, output, _ = launcher.run(command=".ci/run")
    assert (status, output.splitlines()[-1], len(launcher.peer_calls())) == (0, "exit status: 0", 1)


@pytest.mark.parametrize("command", ["admin", "quota", "doctor"])
def test_commands_of_operators_become_parts_of_the_bot(launcher: Launcher, command: str) -> None:
    status, output, _ = launcher.run(command, "show", "@ada:example.org")
    assert (status, output.splitlines()[1:]) == (0, ["-m", "bot", command, "show", "@ada:example.org"])
