"""What hivemind raises in one operation is one of our errors, and ends neither a loop nor a client."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarm.background import running
from swarm.bootstrap import refresh_forever
from swarm.dht import Dht, announce_forever
from swarm.errors import SwarmError
from swarm.identity import Identity, temporary_identity
from swarm.network import open_network
from swarm.transport import open_transport
from swarm.wire.records import ServerRecord
from tests.swarm.peers import FINGERPRINT, sealed, server_record


@pytest.fixture
def ours() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


class FailingNode:
    """A hivemind node of which every operation fails."""

    protocol = SimpleNamespace(routing_table=SimpleNamespace(uid_to_peer_id={}))

    async def get(self, *_: Any, **__: Any) -> None:
        raise AssertionError("traverse_dht\nsecret details")

    store = find_nearest_nodes = get


class FlakyDht:
    """Fails the first time, then does what it is asked, and sets `recovered`."""

    def __init__(self, *records: ServerRecord) -> None:
        self.recovered = asyncio.Event()
        self._records = records
        self._has_failed = False

    async def announce(self, _: bytes) -> bool:
        self._fail_once()
        return True

    async def refresh_neighbours(self) -> None:
        self._fail_once()

    async def find_servers(self, _: str) -> tuple[ServerRecord, ...]:
        self._fail_once()
        return self._records

    def _fail_once(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            raise SwarmError("could not look up records in the DHT: it stumbled")
        self.recovered.set()


@pytest.mark.parametrize(
    "operate",
    [
        lambda dht, raw: dht.announce(raw),
        lambda dht, _: dht.find_servers(FINGERPRINT),
        lambda dht, _: dht.find_models(),
        lambda dht, _: dht.refresh_neighbours(),
    ],
)
async def test_what_hivemind_raises_leaves_as_one_sentence_of_ours(
    operate: Callable[[Dht, bytes], Awaitable[Any]], ours: Identity
) -> None:
    dht = Dht(FailingNode(), cast(Any, ours), ())
    with pytest.raises(SwarmError, match=r"in the DHT: traverse_dht\Z"):
        await operate(dht, sealed(ours))


async def test_a_failed_announcement_is_tried_again(ours: Identity) -> None:
    async def make_record() -> bytes:
        return sealed(ours)

    dht = FlakyDht()
    forever = announce_forever(cast(Dht, dht), make_record, asyncio.Event(), renew_s=0.0)
    async with running(forever), asyncio.timeout(5):
        await dht.recovered.wait()


async def test_a_bootstrap_node_outlives_a_failed_look_for_neighbours() -> None:
    dht = FlakyDht()
    async with running(refresh_forever(cast(Dht, dht), refresh_s=0.0)), asyncio.timeout(5):
        await dht.recovered.wait()


async def test_a_client_starts_although_its_first_look_up_fails(ours: Identity) -> None:
    dht = FlakyDht(server_record(ours))
    async with (
        asyncio.timeout(20),
        open_transport(client_only=True) as transport,
        open_network(transport, cast(Dht, dht), FINGERPRINT, 4) as network,
    ):
        assert network.directory.servers == ()
        await network.directory.refresh()
        assert network.directory.find(ours.peer_id) is not None
