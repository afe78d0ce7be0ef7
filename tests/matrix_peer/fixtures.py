"""Fixtures of tests that talk to a real homeserver. A test module asks for them with

    pytest_plugins = ("tests.matrix_peer.fixtures",)

so that all modules of one process share one server. Rooms and users are each test's own.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.matrix_peer.human import Human, NewHuman, open_human
from tests.matrix_peer.signed_only import NewSignedOnly, SignedOnly, open_signed_only
from tests.matrix_peer.synapse import Synapse, open_synapse
from tests.peers import JS, SYNAPSE, NotInstalled, Peer, find


def path_or_skip(peer: Peer) -> Path:
    """The file by which a peer is used; skips the test, with the reason, if it is not installed."""
    try:
        return find(peer)
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def synapse_python() -> Path:
    """The interpreter beside which Synapse is installed."""
    return path_or_skip(SYNAPSE)


@pytest.fixture(scope="session")
def synapse(synapse_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """A homeserver for all tests of this process, with the stock limit on messages.

    `register` lifts that limit unless it is told not to.
    """
    with open_synapse(synapse_python, tmp_path_factory.mktemp("synapse")) as synapse:
        yield synapse


@pytest.fixture
def own_synapse(synapse_python: Path, tmp_path: Path) -> Iterator[Synapse]:
    """A homeserver for one test, which may stop it."""
    folder = tmp_path / "synapse"
    folder.mkdir()
    with open_synapse(synapse_python, folder) as synapse:
        yield synapse


@pytest_asyncio.fixture
async def new_human(synapse: Synapse, tmp_path: Path) -> AsyncIterator[NewHuman]:
    """Registers and logs in people, each a new user without a limit on messages; they go with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str, *, encrypted: bool = False) -> Human:
            account = await asyncio.to_thread(synapse.register, name)
            store = tmp_path / account.name if encrypted else None
            return await stack.enter_async_context(open_human(synapse.url, account, store))

        yield make


@pytest_asyncio.fixture
async def new_signed_only(synapse: Synapse, tmp_path: Path) -> AsyncIterator[NewSignedOnly]:
    """Registers and logs in people with strict clients of another make; they go with the test."""
    sdk = path_or_skip(JS)
    async with contextlib.AsyncExitStack() as stack:

        async def make(name: str) -> SignedOnly:
            account = await asyncio.to_thread(synapse.register, name)
            log = tmp_path / f"{account.name}.js-log"
            return await stack.enter_async_context(open_signed_only(sdk, synapse.url, account, log))

        yield make
