"""Backups of a store in use, and the key beside it."""

import asyncio
import stat
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from storage.backup import copy_store
from storage.database import Database, open_database
from storage.errors import StoreUnusable
from storage.hash_key import load_hash_key
from storage.ledger import check
from storage.schema import turn
from tests.storage.people import say, talk


async def fill(store: Database, num_turns: asyncio.Semaphore, stop: asyncio.Event) -> int:
    """Add turns, and count them, until told to stop."""
    conversation, number = await store.write(talk), 0
    while not stop.is_set():
        await store.write(say, conversation, str(number))
        num_turns.release()
        number += 1
    return number


def num_turns(connection: Connection) -> int:
    return len(connection.scalars(select(turn.c.id)).all())


async def test_a_backup_of_a_store_in_use_is_whole_and_for_its_owner_alone(
    store: Database, tmp_path: Path
) -> None:
    stop, added, target = asyncio.Event(), asyncio.Semaphore(0), tmp_path / "backup.db"
    async with asyncio.TaskGroup() as group:
        filling = group.create_task(fill(store, added, stop))
        await added.acquire()
        await asyncio.to_thread(copy_store, store.path, target)
        stop.set()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    async with open_database(target) as copy:
        assert 0 < await copy.read(num_turns) <= filling.result()
        assert await copy.read(check) == []


async def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(
    store: Database, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    target.write_text("mine")
    with pytest.raises(StoreUnusable, match="is there already: name another file"):
        copy_store(store.path, target)
    assert target.read_text() == "mine"
    with pytest.raises(StoreUnusable, match="cannot be written"):
        copy_store(store.path, tmp_path / "no such folder" / "backup.db")
    assert not list(tmp_path.rglob("*.part"))


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    store = tmp_path / "murmur.db"
    key = load_hash_key(store)
    assert (len(key), load_hash_key(store)) == (32, key)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_is_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "murmur.db.key").write_text("short")
    with pytest.raises(StoreUnusable, match=r"is not the key that Murmur wrote: restore it"):
        load_hash_key(tmp_path / "murmur.db")
