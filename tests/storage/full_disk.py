"""A store whose file cannot grow: what SQLite says then is what it says on a disk that is full."""

import pytest
from sqlalchemy import Connection

from storage.database import Database
from storage.errors import StoreUnusable


async def fill_disk(store: Database) -> None:
    """From now on the file may not grow, and it has no room inside."""

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS filler (bytes BLOB)")
        (num_pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {num_pages}").all()

    async def fill(num_bytes: int) -> None:
        for _ in range(1000):
            await store.write(
                lambda c: c.exec_driver_sql(f"INSERT INTO filler VALUES (zeroblob({num_bytes}))").rowcount
            )

    await store.write(limit)
    for num_bytes in (1000, 100, 10):
        with pytest.raises(StoreUnusable, match="the disk is full: free some space"):
            await fill(num_bytes)


async def free_disk(store: Database) -> None:
    """There is room again."""
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").all())
