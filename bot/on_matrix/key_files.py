"""The files in which matrix-nio keeps a device's keys: for their owner alone, like all in their folder.

The library makes a database as the umask says, and SQLite gives its journal the mode of the database. So we
make the file before it does.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from nio.crypto import OlmAccount

from bot.on_matrix.signing_seeds import load_seeds

MODE = 0o600
LOCKED_S = 5.0
_ENDINGS = (".db", ".db-journal", ".db-wal", ".db-shm")
_FIND = "SELECT account, shared FROM accounts WHERE user_id = ? AND device_id = ?"


class KeysUnusable(Exception):
    """The keys cannot be read; the text says in one sentence what the operator can do."""


def make_private(folder: Path) -> None:
    """Have a folder that nobody else can look into. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def close_databases(folder: Path, user_id: str, device_id: str) -> None:
    """Let only their owner read the databases, and make that of a device if there is none. Raises OSError."""
    path = database_of(folder, user_id, device_id)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE))
    for each in _databases(folder, user_id):
        each.chmod(MODE)


def check_keys(folder: Path, seeds_file: Path, user_id: str, device_id: str, secret: str) -> bool:
    """Read all keys as the bot does, and change nothing; False if the device has none yet.

    Raises KeysUnusable, SeedsUnusable. Takes 0.1 s of a core.
    """
    found = _find_account(database_of(folder, user_id, device_id), user_id, device_id)
    if found is not None:
        try:
            OlmAccount.from_pickle(found[0], secret, bool(found[1]))
        except Exception as error:  # the library below has kinds of its own, some without a common base
            raise KeysUnusable(unreadable(folder)) from error
    return load_seeds(seeds_file, user_id, secret) is not None or found is not None


def unreadable(folder: Path) -> str:
    """What to say about keys that another secret has encrypted, or that are broken."""
    return (
        f"the keys in {folder} cannot be read: set the store_secret they were made with, or log in anew"
        " with ./murmur matrix login"
    )


def database_of(folder: Path, user_id: str, device_id: str) -> Path:
    """Where the library keeps the keys of a device."""
    return folder / f"{user_id}_{device_id}.db"


def _databases(folder: Path, user_id: str) -> Iterator[Path]:
    for each in folder.iterdir():
        if each.name.startswith(f"{user_id}_") and each.name.endswith(_ENDINGS) and each.is_file():
            yield each


def _find_account(path: Path, user_id: str, device_id: str) -> tuple[bytes, int] | None:
    """A device's own keys, as they are kept; None if there are none. Raises KeysUnusable."""
    if not path.exists() or not path.stat().st_size:  # it is made before there is anything in it
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", LOCKED_S, uri=True)) as keys:
            found: tuple[bytes, int] | None = keys.execute(_FIND, (user_id, device_id)).fetchone()
            return found
    except sqlite3.Error as error:
        raise KeysUnusable(
            f"{path} cannot be read ({error}): try again, or log in anew with ./murmur matrix login"
        ) from error
