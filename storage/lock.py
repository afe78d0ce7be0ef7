"""One bot process per store: an exclusive lock beside the file, held for the process's life.

That lock alone proves that every other process which ever wrote here is dead, whatever it left behind.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from storage.errors import StoreInUse, StoreUnusable


@contextlib.contextmanager
def instance_lock(store: Path) -> Iterator[None]:
    """Hold `store`'s lock. Raises StoreInUse if another process does, StoreUnusable if it cannot be made."""
    path = store.with_name(store.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreInUse(f"{store} is in use by another bot, process {_named_in(descriptor)}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder_of(store: Path) -> str | None:
    """The process that holds `store`'s lock, None if nobody does. Raises StoreUnusable if it cannot be read.

    For a moment a shared lock is asked for, which is not had while a bot runs.
    """
    path = store.with_name(store.name + ".lock")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _named_in(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _named_in(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
