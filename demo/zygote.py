"""A process that has imported everything and starts servers by forking: a new one joins in a second.

It is forked itself before this program has threads or an event loop, and stays single-threaded. Whoever
ends the parent, with whatever signal, ends the servers and their p2pd's: the zygote sees the end of its line,
and each of the others asks the kernel for a signal when its parent dies.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PR_SET_PDEATHSIG = 1
POLL_S = 0.2
STOP_S = 3.0
END_S = 6.0

Start = Callable[[dict[str, Any]], None]
"""Runs one service in a fresh process, until it is told to end."""


def die_with(parent_pid: int) -> None:
    """Have this process killed when its parent ends."""
    _ask_for(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def _ask_for(number: signal.Signals) -> None:
    """Have this process sent a signal when its parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


@dataclass(frozen=True)
class Zygote:
    """The zygote, as its parent sees it: our end of the line to it, which has JSON objects, one a line.

    We send {"start": name, "log": path, ...} and {"stop": true}; it sends {"started": name, "pid": n} and
    {"exited": name, "pid": n}. What the service says is appended to the log.
    """

    line: socket.socket
    pid: int

    def end(self) -> None:
        """Have it end everything. Returns when it is gone; one that does not obey is killed."""
        self.line.settimeout(END_S)
        try:
            self.line.sendall(b'{"stop": true}\n')
            while self.line.recv(4096):
                continue
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
        finally:
            self.line.close()
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def fork_zygote(start: Start, clean_up: Callable[[], None]) -> Zygote:
    """Fork the zygote. `clean_up` is its last work, when all its services have ended."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _run_child(lambda: _Loop(theirs, start).run(clean_up))
    theirs.close()
    return Zygote(ours, pid)


def _run_child(work: Callable[[], None]) -> None:
    """Run `work` in a forked process and end it, without the parent's clean-up."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the process ends here; its log says why
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Loop:
    """What the zygote does."""

    def __init__(self, line: socket.socket, start: Start) -> None:
        self._line = line
        self._start = start
        self._children: dict[int, str] = {}
        self._unread = b""

    def run(self, clean_up: Callable[[], None]) -> None:
        """Obey until told to stop, or until the line ends: then nobody waits for farewells."""
        os.setsid()
        _ask_for(signal.SIGCONT)  # one that is frozen has to see the end of the line as well
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            self._stop(STOP_S if self._obey() else 0.0)
        finally:
            clean_up()

    def _obey(self) -> bool:
        """Start what is ordered; returns whether we were told to stop."""
        while True:
            readable, _, _ = select.select([self._line], [], [], POLL_S)
            self._reap()
            if not readable:
                continue
            try:
                raw = self._line.recv(65_536)
            except ConnectionError:  # ended before it had read all that we said
                raw = b""
            if not raw:
                return False
            self._unread += raw
            *lines, self._unread = self._unread.split(b"\n")
            orders = [json.loads(line) for line in lines]
            if any("stop" in order for order in orders):
                return True
            for order in orders:
                self._fork(order)

    def _fork(self, order: dict[str, Any]) -> None:
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            _run_child(lambda: self._serve(order, parent_pid))
        self._children[pid] = order["start"]
        self._say({"started": order["start"], "pid": pid})

    def _serve(self, order: dict[str, Any], parent_pid: int) -> None:
        die_with(parent_pid)
        self._line.close()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._start(order)

    def _reap(self) -> None:
        while self._children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._say({"exited": self._children.pop(pid), "pid": pid})

    def _stop(self, within_s: float) -> None:
        """End the children politely, then not."""
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + within_s
        while self._children and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.02)
        self._signal_all(signal.SIGKILL)
        while self._children:
            pid, _ = os.waitpid(-1, 0)
            self._children.pop(pid, None)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _say(self, event: dict[str, Any]) -> None:
        try:
            self._line.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            return
