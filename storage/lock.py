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
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise StoreInUse(f"{store} is in use by another bot, process {holder or 'unknown'}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
