"""What the doctor finds out about a store, beside a running bot and without one."""

import os
import sqlite3
from pathlib import Path

import pytest

from bot.doctor.store import check_store
from storage.database import open_database


async def found(path: Path) -> list[str]:
    return [str(finding) for finding in await check_store(path)]


async def test_a_store_that_can_be_written_is_well(store_path: Path) -> None:
    async with open_database(store_path):
        pass
    assert await found(store_path) == [
        f"ok       store: {store_path} can be written, and its schema is this version's",
        "ok       instance: no bot uses this store now",
    ]


async def test_a_running_bot_is_named_and_keeps_its_lock(store_path: Path) -> None:
    async with open_database(store_path) as running:
        store, instance = await found(store_path)
        assert store.startswith("ok ")
        assert instance == (
            f"warning  instance: a bot runs on this store, process {os.getpid()}: a second one will not start"
        )
        assert await running.read(lambda connection: 1) == 1
    async with open_database(store_path):
        pass


async def test_after_the_doctor_a_bot_can_start(store_path: Path) -> None:
    await found(store_path)
    async with open_database(store_path):
        pass


async def test_a_store_that_is_not_there_yet_is_made_later_and_not_by_the_doctor(tmp_path: Path) -> None:
    path = tmp_path / "murmur.sqlite3"
    assert await found(path) == [f"ok       store: {path} is made at the first start"]
    assert list(tmp_path.iterdir()) == []
    (gone,) = await found(tmp_path / "gone" / "murmur.sqlite3")
    assert gone.endswith("make it, for the bot's user")
    assert gone.startswith("FAILED")


async def test_a_newer_schema_is_told(store_path: Path) -> None:
    set_schema(store_path, "9999")
    store, _ = await found(store_path)
    assert store.startswith("FAILED   store:")
    assert "was written by a newer Murmur (schema 9999): install that, or restore a backup" in store


async def test_an_older_schema_is_well_the_bot_upgrades_it(store_path: Path) -> None:
    set_schema(store_path, "0001")
    store, _ = await found(store_path)
    assert store == f"ok       store: {store_path} was written by an older Murmur: the next start upgrades it"


async def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "murmur.sqlite3"
    path.write_bytes(b"something else " * 100)
    store, _ = await found(path)
    assert store == f"FAILED   store: {path}: it is no SQLite database: move it away, or restore a backup"


async def test_a_read_only_store_is_told(read_only_store: Path) -> None:
    store, _ = await found(read_only_store)
    assert store == f"FAILED   store: {read_only_store}: it may not be written: check who owns it"


@pytest.fixture
def read_only_store(store_path: Path) -> Path:
    """A store whose pages say that nobody may write them, root neither."""
    with sqlite3.connect(store_path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    raw = bytearray(store_path.read_bytes())
    raw[18] = 3  # a version of the file format that may be read alone, whoever asks
    raw[19] = 1
    store_path.write_bytes(raw)
    return store_path


def set_schema(path: Path, revision: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
