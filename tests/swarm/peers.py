"""What tests of the network need: records of one-off identities, and a peer beside ours."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from swarm.dht import Dht, open_dht
from swarm.errors import PeerUnreachable
from swarm.identity import Identity
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN
from swarm.wire.records import ServerRecord, seal_record

CIRCUIT_RELAY = "/libp2p/circuit/relay/0.2.0/hop"
FINGERPRINT = "0123456789abcdef0123456789abcdef"


def server_record(identity: Identity, **changes: Any) -> ServerRecord:
    """A plausible record of `identity`, valid from now for 30 s."""
    now = time.time()
    fields: dict[str, Any] = {
        "peer": identity.peer_id,
        "sequence": 1,
        "issued_at": now,
        "expires_at": now + 30,
        "fingerprint": FINGERPRINT,
        "start": 0,
        "end": 4,
        "state": "online",
        "throughput": 100.0,
        "inference_rps": 1000.0,
    }
    return ServerRecord(**(fields | changes))


def sealed(identity: Identity, **changes: Any) -> bytes:
    """`server_record`, signed."""
    return seal_record(server_record(identity, **changes), identity.sign)


@asynccontextmanager
async def node(*initial_peers: str, **options: Any) -> AsyncIterator[tuple[Transport, Dht]]:
    """A peer with its DHT, joined to `initial_peers`."""
    async with (
        open_transport(initial_peers=initial_peers, **options) as transport,
        open_dht(transport, initial_peers) as dht,
    ):
        yield transport, dht


async def is_relay(peer_id: PeerId, addresses: Sequence[str] = (), *, asks: Transport | None = None) -> bool:
    """Whether a peer relays for others. Asked by a stranger, or by who is connected to it already."""
    if asks is None:
        async with open_transport(client_only=True) as stranger:
            return await is_relay(peer_id, addresses, asks=stranger)
    await asks.connect(peer_id, addresses)
    try:
        stream = await asks.open_stream(peer_id, CIRCUIT_RELAY, limit=1024, decoder=FROM_CHAIN)
    except PeerUnreachable as error:
        if "protocols not supported" in str(error):
            return False
        raise
    stream.close()
    return True
