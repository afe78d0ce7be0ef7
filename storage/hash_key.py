"""The key under which forgotten people are known again: a file beside the store, for its owner alone."""

import os
import secrets
from pathlib import Path

from storage.errors import StoreUnusable

KEY_BYTES = 32


def load_hash_key(store: Path) -> bytes:
    """The key beside `store`, made if there is none.

    Without it nobody can tell who the store's hashes stand for. Raises StoreUnusable.
    """
    path = store.with_name(store.name + ".key")
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be read or written: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise StoreUnusable(f"{path} is not the key that Murmur wrote: restore it from a backup")
    return key


def _make(path: Path) -> None:
    """Write a new key; if somebody else does so at the same time, the first one counts."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
