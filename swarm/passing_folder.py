"""Folders for what a process needs while it runs. Whoever is killed leaves one; the next to start removes it.

Whoever makes one holds its lock: a lock that can be had belongs to a process that is gone.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "murmur-"
LOCK = "alive.lock"


@contextmanager
def passing_folder(parent: Path | None = None) -> Iterator[Path]:
    """A folder that only we may enter, gone after the block; in `parent`, or among the temporary ones.

    Raises OSError if it cannot be made.
    """
    place = parent or Path(tempfile.gettempdir())
    sweep(place)
    folder, lock = make_locked(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove what processes of this user left in `parent`; what cannot be removed stays, without a word."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            lock = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # not one of these, or another process sweeps it
            continue
        try:
            if _is_had(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def make_locked(parent: Path, prefix: str = PREFIX) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock, as do processes that are forked later.

    Raises OSError if it cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
        if _is_had(lock) and (folder / LOCK).exists():
            return folder, lock
        os.close(lock)  # another process has swept it in this very moment


def _is_had(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
