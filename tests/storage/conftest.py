"""A store in a file of its own, for each test."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from storage.database import Database, open_database
from storage.migrating import migrate


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the newest schema, for copying: to migrate one takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "murmur.db"
    migrate(path)
    return path


@pytest_asyncio.fixture
async def store(tmp_path: Path, empty_store: Path) -> AsyncIterator[Database]:
    shutil.copy(empty_store, tmp_path / "murmur.db")
    async with open_database(tmp_path / "murmur.db") as database:
        yield database
