"""A store that may not be written for a while: SQLite says then what it says of a read-only file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from storage.database import Database


@asynccontextmanager
async def read_only(store: Database) -> AsyncIterator[None]:
    """The store can be read, but not written, for the length of the block."""
    await asyncio.to_thread(_set, store, "ON")
    try:
        yield
    finally:
        await asyncio.to_thread(_set, store, "OFF")


def _set(store: Database, value: str) -> None:
    """On the one connection that writes, between two transactions."""
    connection = store._writer.raw_connection()
    try:
        connection.cursor().execute(f"PRAGMA query_only={value}")
    finally:
        connection.close()
