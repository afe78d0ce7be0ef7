"""A core on a store of its own, a platform in memory and a clock that the test turns."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from storage.migrating import migrate
from tests.bot.world import World, open_world


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the newest schema, for copying."""
    path = tmp_path_factory.mktemp("store") / "murmur.db"
    migrate(path)
    return path


@pytest.fixture
def store_path(tmp_path: Path, empty_store: Path) -> Path:
    """A store file for this test alone."""
    shutil.copy(empty_store, tmp_path / "murmur.db")
    return tmp_path / "murmur.db"


@pytest_asyncio.fixture
async def world(store_path: Path) -> AsyncIterator[World]:
    async with open_world(store_path) as world:
        yield world
