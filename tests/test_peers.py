"""Installing the tests' peers: once, afresh after an interruption, and one sentence if it fails."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import peers
from tests.end_to_end.processes import wait_until
from tests.peers import InstallFailed, NotInstalled, Peer, find, install, main
from tests.test_launcher import obey_interrupts

STEP_S = 20.0


def peer_of(script: str, name: str = "peer") -> Peer:
    """A peer that a shell script installs; it is used by the file `tool`."""
    return Peer(name, "tool>=1", lambda requirement: (("sh", "-c", script),), "tool")


def test_what_is_missing_is_installed_once(tmp_path: Path) -> None:
    peer = peer_of("echo >>../runs; touch tool")
    with pytest.raises(NotInstalled, match="murmur test --all"):
        find(peer, tmp_path)
    assert "was installed" in install(peer, tmp_path)
    assert install(peer, tmp_path) == "peer is there already"
    assert find(peer, tmp_path) == tmp_path / "peer/tool"
    assert len((tmp_path / "runs").read_text()) == 1


def test_a_test_without_its_peer_is_skipped_with_the_reason() -> None:
    from tests.matrix_peer.fixtures import path_or_skip  # pytest wants to be the first to import it

    with pytest.raises(pytest.skip.Exception, match="nothing is not installed"):
        path_or_skip(peer_of("touch tool", name="nothing"))


def test_another_requirement_is_installed_afresh(tmp_path: Path) -> None:
    peer = peer_of("test ! -e tool && touch tool")
    install(peer, tmp_path)
    newer = dataclasses.replace(peer, requirement="tool>=2")
    with pytest.raises(NotInstalled):
        find(newer, tmp_path)
    assert "was installed" in install(newer, tmp_path)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo hello; echo 'ERROR: no network'; echo bye; exit 1", "ERROR: no network"),
        ("exit 1", "it said nothing"),
        ("true", "installed without tool"),
        ("sleep 60", "not installed in time"),
    ],
)
def test_a_failure_is_one_sentence_and_is_tried_again(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(InstallFailed, match=reason) as caught:
        install(peer_of(script), tmp_path, within_s=0.5)
    assert "\n" not in str(caught.value)
    assert "was installed" in install(peer_of("test ! -e tool && touch tool"), tmp_path)


def test_what_the_machine_lacks_is_a_reason_and_no_failure(tmp_path: Path) -> None:
    peer = dataclasses.replace(peer_of("exit 1"), lacks=lambda: "there is no compiler")
    assert install(peer, tmp_path) == "peer is left out: there is no compiler"
    with pytest.raises(NotInstalled, match="there is no compiler"):
        find(peer, tmp_path)


def test_of_two_that_start_at_once_one_installs(tmp_path: Path) -> None:
    peer = peer_of("echo >>../runs; sleep 0.3; touch tool")
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(install(peer, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STEP_S)
    assert sorted(said)[0] == "peer is there already"
    assert len((tmp_path / "runs").read_text()) == 1


def test_who_waits_too_long_for_another_gives_up(tmp_path: Path) -> None:
    with peers._locked(tmp_path, time.monotonic()), pytest.raises(InstallFailed, match="another start"):
        install(peer_of("touch tool"), tmp_path, within_s=0.2)


KILLED = """
import pathlib, sys
from tests.peers import Peer, install
script = "echo $$ >pid; while test ! -e ../go-on; do sleep 0.05; done; touch tool"
install(Peer("peer", "tool>=1", lambda r: (("sh", "-c", script),), "tool"), pathlib.Path(sys.argv[1]))
"""


def test_nobody_begins_afresh_while_a_killed_ones_installer_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "peer/pid"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)]) as process:
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), STEP_S, "nothing was started")
        process.send_signal(signal.SIGKILL)
    with pytest.raises(InstallFailed, match="another start"):
        install(peer_of("touch tool"), tmp_path, within_s=0.3)
    (tmp_path / "go-on").touch()
    assert "was installed" in install(peer_of("test ! -e tool && touch tool"), tmp_path)


def test_it_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(peer_of("touch tool"), tmp_path)
    assert capsys.readouterr().err == "peers: peer: [0 s] starting\n"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Names peers that scripts install instead of the real ones."""
    monkeypatch.setattr(peers, "PEERS", {})

    def name(name: str, script: str) -> None:
        peers.PEERS[name] = peer_of(script, name)

    return name


def test_the_command_installs_all_and_one_failure_hides_no_other(
    tmp_path: Path, known: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    known("bad", "echo error; exit 1")
    known("good", "touch tool")
    assert main([], tmp_path) == 1
    said = capsys.readouterr().err
    assert "bad cannot be installed: error" in said
    assert "good was installed" in said
    assert main(["good"], tmp_path) == 0
    with pytest.raises(SystemExit) as caught:
        main(["better"], tmp_path)
    assert caught.value.code == 2


INTERRUPTED = """
import pathlib, sys
from tests import peers
script = sys.argv[2]
peers.PEERS.clear()
peers.PEERS["peer"] = peers.Peer("peer", "tool>=1", lambda r: (("sh", "-c", script),), "tool")
sys.exit(peers.main([], pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize("script", ["echo $$ >pid; sleep 60", "echo $$ >pid; kill -INT $PPID; sleep 60"])
def test_ctrl_c_ends_what_was_begun_and_says_what_to_do(script: str, tmp_path: Path) -> None:
    pid = tmp_path / "peer/pid"
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), script]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=obey_interrupts) as process:
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"), STEP_S, "nothing was started")
        if "$PPID" not in script:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=STEP_S)
    assert process.returncode == 130
    assert errors.splitlines()[-1].endswith("run the same command again to start it afresh")
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize(
    ("version", "lacks"), [("v20.1.0", ""), ("v18.20.4", "Node.js 20 or newer"), ("", "this is none")]
)
def test_node_must_be_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, lacks: str
) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = peers._lacks_node.__wrapped__()
    assert lacks in said if lacks else said == ""
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "not there" in peers._lacks_node.__wrapped__()
