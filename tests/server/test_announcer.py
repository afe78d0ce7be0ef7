"""A server says where it is reached now, and outlives an announcement that fails."""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

import pytest
import torch

from server.announcer import Announced, Announcer
from swarm.background import running
from swarm.dht import Dht
from swarm.errors import SwarmError
from swarm.identity import Identity, temporary_identity
from swarm.transport import Transport
from swarm.wire.blocks import Span
from swarm.wire.records import ServerRecord, open_any_record
from tests.swarm.peers import FINGERPRINT

RELAYED = "/ip4/203.0.113.7/tcp/1/p2p/relay/p2p-circuit"


@pytest.fixture
def identity() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


class LateRelay:
    """A transport behind NAT: it learns of `relayed` when it asks again."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.peer_id = identity.peer_id
        self.addresses: tuple[str, ...] = ()
        self.relayed: tuple[str, ...] = ()

    async def refresh_addresses(self) -> tuple[str, ...]:
        self.addresses = self.relayed
        return self.addresses


class Listener:
    """A DHT that hears what one peer announces of itself as a server, or fails."""

    def __init__(self, identity: Identity, *, fails: bool = False) -> None:
        self.heard: asyncio.Queue[ServerRecord] = asyncio.Queue(10)
        self._peer_id = identity.peer_id
        self._fails = fails

    async def announce(self, raw: bytes) -> bool:
        if self._fails:
            raise SwarmError("could not announce a record in the DHT: it stumbled")
        record = open_any_record(raw, self._peer_id, time.time())
        if isinstance(record, ServerRecord):
            self.heard.put_nowait(record)
        return True


def announcer(transport: LateRelay, dht: Listener) -> Announcer:
    announced = Announced(FINGERPRINT, Span(0, 2), torch.float32)
    return Announcer(cast(Transport, transport), cast(Dht, dht), announced)


async def test_an_address_that_a_relay_lends_later_is_announced(identity: Identity) -> None:
    transport, dht = LateRelay(identity), Listener(identity)
    server = announcer(transport, dht)
    async with running(server.announce_forever()), asyncio.timeout(5):
        assert (await dht.heard.get()).addresses == ()
        transport.relayed = (RELAYED,)
        server.set_state("online")
        record = await dht.heard.get()
    assert (record.addresses, record.is_relayed) == ((RELAYED,), True)


async def test_a_goodbye_that_fails_raises_nothing(
    identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    server = announcer(LateRelay(identity), Listener(identity, fails=True))
    await server.say_goodbye()
    assert caplog.messages == ["could not announce a record in the DHT: it stumbled"]
