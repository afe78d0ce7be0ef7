"""A disk that is full: whoever writes is told so, nothing is written by halves, and it goes on with room."""

import asyncio

import pytest
from sqlalchemy import Connection

from storage.database import Database
from storage.errors import StoreUnusable
from tests.storage.full_disk import fill_disk, free_disk


def note(connection: Connection, name: str, size: int) -> str:
    """Somebody with a name as long as that."""
    connection.exec_driver_sql(
        "INSERT INTO account (platform, external_id, created_at) VALUES (?, ?, 0)", (name, "x" * size)
    )
    return name


def names(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql("SELECT platform FROM account ORDER BY platform").scalars())


async def test_all_that_is_written_together_fails_with_a_full_disk_and_nothing_of_it_is_there(
    store: Database,
) -> None:
    await store.write(note, "before", 10)
    await fill_disk(store)
    writes = [("large", 50_000), ("a", 1), ("b", 1)]
    results = await asyncio.gather(
        *(store.write(note, name, size) for name, size in writes), return_exceptions=True
    )
    assert isinstance(results[0], StoreUnusable)
    told = [name for (name, _), result in zip(writes, results, strict=True) if result == name]
    assert await store.read(names) == sorted([*told, "before"])
    assert all(isinstance(result, str | StoreUnusable) for result in results)
    with pytest.raises(StoreUnusable, match="the disk is full"):
        await store.write(note, "again", 50_000)
    await free_disk(store)
    assert await store.write(note, "large", 50_000) == "large"
    assert "large" in await store.read(names)
