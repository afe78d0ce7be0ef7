"""Real server processes: each runs a command of ours with its own p2pd, and ends with the tests.

`python -m tests.end_to_end.processes FOLDER` is the forge: it has imported everything once and forks a
process for every line of standard input, `[name, module, argument, ...]`, so that a server is there in one
second instead of five. What a child writes goes to FOLDER/name.out and FOLDER/name.log (its standard error);
FOLDER/name.pid says that it was started and FOLDER/name.exit with which code it ended. The forge and its
children end with its parent.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0")
IMPORTS = (
    "server.block_server",
    "swarm.bootstrap",
    "swarm.commands.generate",
    "transformers.models.llama.modeling_llama",
)
START_S = 60.0
POLL_S = 0.02


def wait_until(is_done: Callable[[], object], within_s: float, what: str) -> float:
    """Poll a file or a process, which cannot tell us; returns the seconds it took."""
    started = time.monotonic()
    while not is_done():
        assert time.monotonic() - started < within_s, f"after {within_s} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - started


@dataclass
class Service:
    """One process of the swarm."""

    name: str
    folder: Path
    pid: int = 0
    peer_id: str = ""
    addresses: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """What it wrote to standard output so far."""
        return self._said("out")

    @property
    def log(self) -> str:
        """What it wrote to standard error so far."""
        return self._said("log")

    def _said(self, suffix: str) -> str:
        path = self.folder / f"{self.name}.{suffix}"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def exit_code(self) -> int | None:
        """How it ended; -9 after a SIGKILL, None while it lives."""
        path = self.folder / f"{self.name}.exit"
        return int(path.read_text()) if path.exists() else None

    @property
    def peak_bytes(self) -> int:
        """The most memory that the process really had since `forget_peaks`."""
        return _peak_bytes(self.pid)

    @property
    def p2pd_peak_bytes(self) -> int:
        """The same, of its p2pd."""
        return sum(map(_peak_bytes, self.child_pids()))

    def forget_peaks(self) -> None:
        """From now on the peaks are those to come; at first, what there is now."""
        for pid in (self.pid, *self.child_pids()):
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def child_pids(self) -> list[int]:
        """Its p2pd."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def wait_ready(self) -> None:
        """Wait until it is online."""
        path = self.folder / f"{self.name}.json"
        wait_until(lambda: path.exists() or self.exit_code is not None, START_S, f"{self.name} is not ready")
        assert path.exists(), self.log
        ready = json.loads(path.read_text())
        self.peer_id, self.addresses = ready["peer_id"], tuple(ready["addresses"])

    def wait_exit(self, within_s: float) -> int:
        """Wait for its end; returns the exit code."""
        wait_until(lambda: self.exit_code is not None, within_s, f"{self.name} still runs\n{self.log}")
        assert self.exit_code is not None
        return self.exit_code


class Forge:
    """Starts services. See `open_forge`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._number = 0

    def start(self, module: str, *arguments: str) -> Service:
        """Start `python -m module arguments`, with a ready file of its own."""
        service = self._next_service(module)
        return self._fork(service, module, *arguments, "--ready-file", f"{self._folder / service.name}.json")

    def run(self, module: str, *arguments: str) -> Service:
        """Start `python -m module arguments` as it is."""
        return self._fork(self._next_service(module), module, *arguments)

    def _next_service(self, module: str) -> Service:
        self._number += 1
        return Service(f"{module}-{self._number}", self._folder)

    def _fork(self, service: Service, *command: str) -> Service:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([service.name, *command]) + "\n")
        self._process.stdin.flush()
        path = self._folder / f"{service.name}.pid"
        wait_until(path.exists, START_S, "the forge does not work")
        service.pid = int(path.read_text())
        return service


class ProcessSwarm:
    """A bootstrap node and servers of one model. See `open_process_swarm`."""

    def __init__(self, forge: Forge, model: Path) -> None:
        self.services: list[Service] = []
        self._forge = forge
        self._model = model
        self.dht = forge.start("swarm", "dht", *LOCAL)
        self.services.append(self.dht)
        self.dht.wait_ready()

    @property
    def initial_peers(self) -> tuple[str, ...]:
        """How to join."""
        return self.dht.addresses

    def begin(self, blocks: str, *options: str) -> Service:
        """Start a server without waiting for it. Options after ours replace them."""
        peers = ("--initial-peers", *self.initial_peers, "--dtype", "float32")
        service = self._forge.start("server", str(self._model), *peers, "--blocks", blocks, *LOCAL, *options)
        self.services.append(service)
        return service

    def start(self, *blocks: str) -> list[Service]:
        """Start servers side by side; returns when all are online."""
        servers = [self.begin(span) for span in blocks]
        for server in servers:
            server.wait_ready()
        return servers

    def named(self, peer_id: str) -> Service:
        """The service of that peer."""
        return next(service for service in self.services if service.peer_id == peer_id)

    def end(self, service: Service) -> None:
        """End one without ado; no p2pd of it may be left."""
        children = service.child_pids()
        if service.exit_code is None:
            service.send(signal.SIGKILL)
            service.wait_exit(10)
        left = [pid for pid in children if Path(f"/proc/{pid}").exists()]
        wait_until(lambda: not any(map(_is_alive, left)), 5, f"p2pd of {service.name} outlived it")
        if service in self.services:
            self.services.remove(service)


@contextmanager
def open_forge(
    folder: Path, within: Sequence[str] = (), variables: dict[str, str] | None = None
) -> Iterator[Forge]:
    """Run the forge for the length of the block, by way of the command `within` and with more variables."""
    command = [*within, sys.executable, "-m", "tests.end_to_end.processes", str(folder)]
    ours = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(folder)} | (variables or {})
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=os.environ | ours) as process:
        try:
            yield Forge(process, folder)
        finally:
            process.kill()


@contextmanager
def open_process_swarm(forge: Forge, model: Path) -> Iterator[ProcessSwarm]:
    """A bootstrap node; servers are started by the test. Every process ends with the block."""
    swarm = ProcessSwarm(forge, model)
    try:
        yield swarm
    finally:
        for service in tuple(swarm.services):
            swarm.end(service)


def _peak_bytes(pid: int) -> int:
    _, _, rest = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")
    return int(rest.split()[0]) << 10


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the forge ------------------------------------------------------------------------------------


def _serve(folder: Path) -> None:
    from demo.zygote import die_with

    die_with(os.getppid())
    for name in IMPORTS:
        importlib.import_module(name)
    children: dict[int, str] = {}
    raw, unread = b"?", b""
    while raw:
        readable, _, _ = select.select([0], [], [], POLL_S)
        if readable:
            raw = os.read(0, 65_536)
            *lines, unread = (unread + raw).split(b"\n")
            for line in lines:
                name, *command = json.loads(line)
                children[_forked(folder, name, command)] = name
        _reap(folder, children)


def _forked(folder: Path, name: str, command: list[str]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _run(folder / name, parent, command)
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:  # noqa: BLE001 - the process ends here; its log says why
            traceback.print_exc()
        finally:
            os._exit(code)
    _write(folder / f"{name}.pid", pid)
    return pid


def _run(base: Path, parent: int, command: list[str]) -> int:
    from demo.zygote import die_with

    die_with(parent)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, suffix in enumerate(("out", "log"), start=1):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(f"{base}.{suffix}", flags, 0o600), number)
    module: Any = importlib.import_module(f"{command[0]}.__main__")
    code: int = module.main(command[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _reap(folder: Path, children: dict[int, str]) -> None:
    for pid in tuple(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _write(folder / f"{children.pop(pid)}.exit", os.waitstatus_to_exitcode(status))


def _write(path: Path, number: int) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(str(number))
    draft.rename(path)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
