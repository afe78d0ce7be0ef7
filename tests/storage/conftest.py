"""A store in a file of its own, for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from storage.database import Database, open_database


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "murmur.db") as database:
        yield database
