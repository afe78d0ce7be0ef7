"""Copies of a store while it is in use, through SQLite's own backup, which sees what the WAL still holds."""

import contextlib
import os
import secrets
import sqlite3
from pathlib import Path

from storage.errors import StoreUnusable


def copy_store(path: Path, target: Path, *, replace: bool = False) -> None:
    """Copy the store at `path` to `target`, complete or not at all; nobody who writes there waits for it.

    The copy may be read by its owner alone. Raises StoreUnusable if it cannot be made, or is there already
    and is not to be replaced.
    """
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _copy(path, partial)
        (os.replace if replace else os.link)(partial, target)
    except FileExistsError as error:
        raise StoreUnusable(f"{target} is there already: name another file, or move it away") from error
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(f"{target} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _copy(path: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)  # all at once: between parts, each write of others would begin it anew
    with target.open("rb") as written:
        os.fsync(written.fileno())
