"""A folder for all that the demo's processes put into temporary folders: it goes with them, however they end.

Whoever makes it holds its lock, and so do the processes that are forked later: a lock that can be had belongs
to a demo that is gone, and the next demo removes its folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from swarm.errors import ConfigError

PREFIX = "murmur-demo-"
LOCK = "demo.lock"
MAX_LETTERS = 60  # in a folder with a longer path swarm/transport.py makes no sockets
REMOVE_S = 2.0  # processes that are ending may put something in while it is emptied
REMOVE_AGAIN_S = 0.02


class OwnFolder:
    """The folder of this demo, once it is made."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def make(self) -> Path:
        """Make it for this process and those that it will start. Raises ConfigError if that fails."""
        parent = find_parent(Path(tempfile.gettempdir()))
        sweep(parent)
        try:
            self.path = make_locked(parent)
        except OSError as error:
            raise ConfigError(f"no folder can be made in {parent}: {error.strerror}") from error
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.path)
        return self.path

    def remove(self) -> None:
        """Remove it if it is made. What cannot be removed stays, without a word."""
        if self.path is not None:
            _remove(self.path)


def find_parent(preferred: Path) -> Path:
    """`preferred`, or /tmp if its path is not fit for sockets: too long, or not in ASCII letters."""
    longest = str(preferred / f"{PREFIX}12345678")
    return preferred if longest.isascii() and len(longest) <= MAX_LETTERS else Path("/tmp")


def make_locked(parent: Path) -> Path:
    """Make a folder whose lock is held until the last process that inherits it has ended. Raises OSError."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
        if _is_had(lock) and (folder / LOCK).exists():
            return folder
        os.close(lock)  # another demo has swept it in this very moment


def sweep(parent: Path) -> None:
    """Remove the folders of this user's demos that are gone."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # no demo's, or another demo sweeps it
            continue
        try:
            if _is_had(lock):
                _remove(folder)
        finally:
            os.close(lock)


def _is_had(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(REMOVE_AGAIN_S)
        shutil.rmtree(folder, ignore_errors=True)
