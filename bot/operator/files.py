"""What the operator gets as a file: a copy of the store, and all that is kept of one person."""

import json
import os
import re
import secrets
from pathlib import Path

from bot.commands.naming import Mistaken, read_person
from bot.commands.office import Office
from storage.access import account_named, name_of, note_deed
from storage.backup import copy_store
from storage.database import Transaction
from storage.errors import StoreUnusable
from storage.hash_key import load_hash_key
from storage.privacy import export_person

OF_A_STORE = ("", ".key", ".lock", "-shm", "-wal")
"""How the names of its files go on."""
_UNSHOWN = re.compile(r"[\x7f-\x9f]")
"""What JSON leaves as it is and terminals obey."""


def back_up(store: Path, target: Path, *, replace: bool) -> None:
    """Copy a store, and the key of its hashes, for its owner alone. Raises StorageError, Mistaken.

    The key goes first: a copy without it would not know again who was forgotten.
    """
    if not store.exists():
        raise Mistaken(f"there is no store {store} yet")
    check_target(target, store)
    if target.exists() and not replace:
        raise StoreUnusable(f"{target} is there already: name another file, or add --replace")
    write_privately(target.with_name(f"{target.name}.key"), load_hash_key(store), replace=replace)
    copy_store(store, target, replace=replace)


async def export(office: Office, user: str) -> bytes:
    """All that is kept of a person, as JSON. Raises Mistaken."""
    person = read_person(user)

    def read(connection: Transaction) -> dict[str, object] | None:
        account_id = account_named(connection, person)
        if account_id is None:
            return None
        note_deed(connection, office.deed("export", name_of(person)), office.clock.now_ms())
        return export_person(connection, account_id)

    exported = await office.store.write(read)
    if exported is None:
        raise Mistaken(f"`{person.external_id}` has not used the bot; nothing is kept of them")
    text = json.dumps(exported, ensure_ascii=False, indent=2)
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode(errors="replace") + b"\n"


def check_target(target: Path, store: Path) -> None:
    """See that a file neither hits a folder nor takes a file away that the bot uses. Raises Mistaken."""
    if target.is_dir():
        raise Mistaken(f"{target} is a folder: name a file in it")
    if target.resolve() in {store.with_name(store.name + suffix).resolve() for suffix in OF_A_STORE}:
        raise Mistaken(f"{target} belongs to the store that the bot uses: name another file")


def write_privately(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file that only its owner may read, complete or not at all. Raises StoreUnusable."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (os.replace if replace else os.link)(partial, path)
    except FileExistsError as error:
        raise StoreUnusable(f"{path} is there already: name another file, or add --replace") from error
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
