"""Real peers for the tests, installed under `.peers/`: Synapse, and matrix-js-sdk where Node.js is there.

`python -m tests.peers` installs what is missing, says what it did, and ends with status 1 and one sentence if
it cannot. `python -m tests.peers synapse` installs that one alone. Tests call `find`, and skip if it raises
NotInstalled.
"""

import argparse
import contextlib
import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / ".peers"
MIN_NODE = 20
WITHIN_S = 900.0
POLL_S = 0.1
NEWS_EVERY_S = 5.0
MAX_NEWS_LETTERS = 100
MAX_REASON_LETTERS = 300


class NotInstalled(Exception):
    """A peer is not there; the text says why, in one sentence."""


class InstallFailed(Exception):
    """A peer could not be installed; the text says why, in one sentence."""


@dataclass(frozen=True)
class Peer:
    """Something to install, by commands that run one after the other in its own, empty folder."""

    name: str
    requirement: str
    commands: Callable[[str], Sequence[Sequence[str]]]
    """Given the requirement."""
    leads_to: str
    """The file, in the folder, by which a test uses it."""
    lacks: Callable[[], str] = lambda: ""
    """What the machine lacks to install or use it; empty if nothing."""


def _pip(requirement: str) -> Sequence[Sequence[str]]:
    pip = (os.path.join("venv", "bin", "python"), "-m", "pip", "install", "--no-input")
    return (
        (sys.executable, "-m", "venv", "venv"),
        (*pip, "--disable-pip-version-check", "--progress-bar", "off", requirement),
    )


def _npm(requirement: str) -> Sequence[Sequence[str]]:
    quiet = ("--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts")
    return (("npm", "install", "--prefix", ".", *quiet, requirement),)


@functools.cache
def _lacks_node() -> str:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "Node.js with npm is not there"
    said = subprocess.run(("node", "--version"), capture_output=True, text=True, timeout=30, check=False)
    version = re.match(r"v(\d+)\.", said.stdout)
    if version is None or int(version[1]) < MIN_NODE:
        return f"Node.js {MIN_NODE} or newer is needed, this is {said.stdout.strip()[:20] or 'none'}"
    return ""


SYNAPSE = Peer("synapse", "matrix-synapse>=1.140,<2", _pip, "venv/bin/python")
# 38 and later ask for a newer Node.js than 20.
JS = Peer("js", "matrix-js-sdk@<38", _npm, "node_modules/matrix-js-sdk/lib/index.js", _lacks_node)
PEERS = {peer.name: peer for peer in (SYNAPSE, JS)}


def find(peer: Peer, home: Path = HOME) -> Path:
    """The file by which `peer` is used. Raises NotInstalled."""
    folder = home / peer.name
    if lacks := peer.lacks():
        raise NotInstalled(f"{peer.name} cannot be used: {lacks}")
    if not _is_installed(peer, folder):
        raise NotInstalled(f"{peer.name} is not installed: `./murmur test --all` does that")
    return folder / peer.leads_to


def install(peer: Peer, home: Path = HOME, within_s: float = WITHIN_S) -> str:
    """Install `peer` if it is not there; returns what was done, in words.

    Of two that start at once the second waits. What was interrupted is made afresh. Raises InstallFailed.
    """
    if lacks := peer.lacks():
        return f"{peer.name} is left out: {lacks}"
    folder, started = home / peer.name, time.monotonic()
    try:
        with _locked(home, started + within_s) as lock:
            if _is_installed(peer, folder):
                return f"{peer.name} is there already"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for command in peer.commands(peer.requirement):
                _run(command, folder, lock, started + within_s)
            if not (folder / peer.leads_to).exists():
                raise InstallFailed(f"{peer.name} was installed without {peer.leads_to}")
            _mark(folder).write_text(_fingerprint(peer), encoding="utf-8")
    except OSError as error:
        raise InstallFailed(f"{peer.name} cannot be installed: {error}") from error
    return f"{peer.name} was installed in {time.monotonic() - started:.0f} s"


def _mark(folder: Path) -> Path:
    return folder / "murmur-installed"


def _fingerprint(peer: Peer) -> str:
    return f"{peer.requirement}\n{Path(sys.executable).resolve()}\n"


def _is_installed(peer: Peer, folder: Path) -> bool:
    mark = _mark(folder)
    return (
        mark.exists()
        and mark.read_text(encoding="utf-8") == _fingerprint(peer)
        and (folder / peer.leads_to).exists()
    )


@contextlib.contextmanager
def _locked(home: Path, deadline: float) -> Iterator[int]:
    """Hold the lock of `.peers/`; gives its descriptor. Raises InstallFailed if others keep it too long."""
    home.mkdir(exist_ok=True)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _takes(descriptor):
            if time.monotonic() > deadline:
                raise InstallFailed(f"another start holds {home / 'lock'} for too long")
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _takes(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run(command: Sequence[str], folder: Path, lock: int, deadline: float) -> None:
    """Run one step of an installation, its words in a log. Raises InstallFailed if it fails or is too slow.

    It inherits the lock: if we are killed it goes on alone, and nobody begins afresh meanwhile.
    """
    log = folder / "install.log"
    with log.open("ab") as out, _interrupts_held():  # one before `process` is there would leave it running
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(lock,),
            start_new_session=True,  # so that what it starts can be ended with it
            preexec_fn=_take_interrupts,
        )
        try:
            _take_interrupts()
            status = _watched(process, folder.name, log, deadline)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status is None:
        raise InstallFailed(f"{folder.name} was not installed in time; details: {log}")
    if status != 0:
        raise InstallFailed(f"{folder.name} cannot be installed: {_reason(log)}; details: {log}")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        _take_interrupts()


def _take_interrupts() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _watched(process: "subprocess.Popen[bytes]", name: str, log: Path, deadline: float) -> int | None:
    """The exit status, or None if the deadline passed; says now and then how far it is."""
    started = time.monotonic()
    next_news = started + NEWS_EVERY_S
    say(f"{name}: [0 s] starting")
    while (now := time.monotonic()) < deadline:
        if (status := process.poll()) is not None:
            return status
        if now >= next_news:
            next_news = now + NEWS_EVERY_S
            say(f"{name}: [{now - started:.0f} s] {_last_line(log)[:MAX_NEWS_LETTERS] or 'starting'}")
        time.sleep(POLL_S)
    return None


def _lines(log: Path) -> list[str]:
    text = log.read_bytes()[-20_000:].decode(errors="replace")
    lines = (line.strip()[:MAX_REASON_LETTERS] for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("WARNING")]


def _last_line(log: Path) -> str:
    return next(iter(_lines(log)[-1:]), "")


def _reason(log: Path) -> str:
    """The first line of a log's end that speaks of an error, or the last line."""
    return next((line for line in _lines(log) if "err" in line.lower()), _last_line(log) or "it said nothing")


def say(text: str) -> None:
    """Tell whoever started this."""
    print(f"peers: {text}", file=sys.stderr, flush=True)  # noqa: T201 - what a command says


def main(arguments: Sequence[str] | None = None, home: Path = HOME) -> int:
    """Install what is named, or everything; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}; all if none")
    parser.add_argument("--within", type=float, default=WITHIN_S, metavar="SECONDS", help="give up after")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in PEERS]:
        parser.error(f"there is no peer {unknown[0]!r}: {', '.join(PEERS)}")
    status = 0
    for name in options.names or PEERS:
        try:
            say(install(PEERS[name], home, options.within))
        except InstallFailed as error:
            say(str(error))
            status = 1
        except KeyboardInterrupt:
            say("interrupted; run the same command again to start it afresh")
            return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
