"""Announce records and look them up, in hivemind's DHT. Only this file and dht_storage.py import it.

Every Murmur node refuses records that do not prove themselves (wire/records.py), at its table's door and
in answers alike, and its table is bounded. What hivemind reads before our code runs, p2pd bounds: 4 MiB.
What hivemind raises leaves as SwarmError, and as ConfigError while we join.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from hivemind.dht import DHTID, DHTNode
from hivemind.dht.protocol import DHTProtocol, ValidationError

from swarm.background import finish
from swarm.dht_requests import MeteredP2P
from swarm.dht_storage import MAX_SUBKEYS, MODELS_KEY, BoundedStorage, SelfCertified, key_of, servers_key
from swarm.errors import ConfigError, PeerUnreachable, SwarmError
from swarm.listening import first_line, nobody_answers
from swarm.transport import Transport, native_id
from swarm.wire.blocks import PeerId
from swarm.wire.records import (
    BadRecord,
    ModelRecord,
    ServerRecord,
    open_any_record,
    open_model_record,
    open_record,
)

logger = logging.getLogger(__name__)

JOIN_S = 8.0
RPC_S = 3.0
OPERATION_S = 30.0  # hivemind leaves a search waiting for ever if its own task fails
STOP_S = 3.0
RENEW_S = 10.0
_CLOCK = (
    "this machine's clock differs from the swarm's by more than 3 seconds: "
    "set it, for example with `timedatectl set-ntp true`, and start again"
)


class Dht:
    """What peers announce. See `open_dht`."""

    def __init__(self, node: DHTNode, transport: Transport, initial_peers: Sequence[str]) -> None:
        self._node = node
        self._transport = transport
        self._initial_peers = tuple(initial_peers)

    @property
    def num_peers(self) -> int:
        """Nodes in our routing table, without us."""
        return len(self._node.protocol.routing_table.uid_to_peer_id)

    @property
    def initial_peers(self) -> tuple[str, ...]:
        """Addresses of those through whom we joined."""
        return self._initial_peers

    def knows(self, peer_id: PeerId) -> bool:
        """Tell whether a node is in our routing table: it answered when it was last asked."""
        return native_id(peer_id) in self._node.protocol.routing_table

    async def announce(self, raw: bytes) -> bool:
        """Store a signed record of ours at the nodes nearest to its key; tell whether any took it.

        Raises BadRecord if it would be refused everywhere; SwarmError if hivemind fails.
        """
        record = open_any_record(raw, self._transport.peer_id, time.time(), slack_s=0.0)
        async with _translated("announce a record"):
            await self._rejoin()
            return bool(await self._node.store(key_of(record), raw, record.expires_at, subkey=record.peer))

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        """Verified records of the servers of one model, by peer id.

        Goodbyes (`offline`) are among them: whoever holds an older record learns that it is no longer true.
        Raises SwarmError if hivemind fails.
        """
        records = []
        for peer, raw in (await self._find(servers_key(fingerprint))).items():
            try:
                record = open_record(raw, peer, time.time())
            except BadRecord as error:
                logger.debug("dropped a record of %s: %s", peer, error)
                continue
            if record.fingerprint == fingerprint:
                records.append(record)
        return tuple(sorted(records, key=lambda record: record.peer))

    async def find_models(self) -> tuple[ModelRecord, ...]:
        """What servers say that they host, by name: an index for people, whose names nobody vouches for.

        Raises SwarmError if hivemind fails.
        """
        records = []
        for peer, raw in (await self._find(MODELS_KEY)).items():
            try:
                records.append(open_model_record(raw, peer, time.time()))
            except BadRecord as error:
                logger.debug("dropped a record of %s: %s", peer, error)
        return tuple(sorted(records, key=lambda record: (record.name, record.fingerprint, record.peer)))

    async def refresh_neighbours(self) -> None:
        """Look up a random key, as a node without traffic should, so that lost peers are noticed.

        Raises SwarmError if hivemind fails.
        """
        async with _translated("look for neighbours"):
            await self._rejoin()
            await self._node.find_nearest_nodes([DHTID.generate()])

    async def _find(self, key: str) -> dict[str, bytes]:
        async with _translated("look up records"):
            await self._rejoin()
            found = await self._node.get(key, latest=True)
        items = found.value.items() if found is not None and isinstance(found.value, dict) else ()
        newest = sorted(items, key=lambda item: -item[1].expiration_time)
        return {peer: item.value for peer, item in newest[:MAX_SUBKEYS] if isinstance(item.value, bytes)}

    async def _rejoin(self) -> None:
        """Greet the initial peers again if we lost everybody: they may have been restarted."""
        if self._initial_peers and not self.num_peers:
            async with asyncio.TaskGroup() as group:
                for address in self._initial_peers:
                    group.create_task(self._greet(address))

    async def _greet(self, address: str) -> None:
        peer_id = PeerId(address.rpartition("/p2p/")[2])
        try:
            async with asyncio.timeout(RPC_S):
                await self._transport.connect(peer_id, [address])
                if await self._node.protocol.call_ping(native_id(peer_id)) is not None:
                    self._node.blacklist.register_success(native_id(peer_id))
        except (PeerUnreachable, TimeoutError) as error:
            logger.debug("initial peer %s does not answer: %s", peer_id, error)


@asynccontextmanager
async def _translated(what: str) -> AsyncIterator[None]:
    """Let a failure to do `what` leave as SwarmError: hivemind promises no kinds, so it is any."""
    try:
        async with asyncio.timeout(OPERATION_S):
            yield
    except Exception as error:
        raise SwarmError(f"could not {what} in the DHT: {first_line(error)}") from error


@asynccontextmanager
async def open_dht(
    transport: Transport, initial_peers: Sequence[str] = (), is_client: bool = False
) -> AsyncIterator[Dht]:
    """Join the DHT of `initial_peers`; without any, start a new one. Leaves it with the block.

    A client asks and announces but keeps nothing for others, which is right for a short stay. Raises
    NobodyAnswers within JOIN_S if none of them does, ConfigError if our clock differs from theirs by more
    than 3 s.
    """
    others = [peer for peer in initial_peers if not peer.endswith(f"/p2p/{transport.peer_id}")]
    node = await _joined(transport, others, is_client or not transport.addresses)
    try:
        yield Dht(node, transport, initial_peers)
    finally:
        await finish(_left(node), within_s=2 * STOP_S)


async def announce_forever(
    dht: Dht, make_record: Callable[[], Awaitable[bytes]], changed: asyncio.Event, *, renew_s: float = RENEW_S
) -> None:
    """Announce what `make_record` returns every `renew_s`, and as soon as `changed` is set.

    Goes on if one announcement fails.
    """
    while True:
        changed.clear()
        try:
            if not await dht.announce(await make_record()):
                logger.warning("nobody took our record; trying again in %d s", renew_s)
        except SwarmError as error:
            logger.warning("%s; trying again in %d s", error, renew_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(renew_s):
                await changed.wait()


async def _joined(transport: Transport, initial_peers: Sequence[str], is_client: bool) -> DHTNode:
    """A node that others may ask; behind a firewall, one that only asks. Raises ConfigError."""
    deadline = asyncio.get_running_loop().time() + JOIN_S
    while True:
        try:
            return await _created(transport, initial_peers, is_client, deadline)
        except _NotDialled:
            logger.info("peers cannot dial us: we use the DHT without serving it")
            is_client, deadline = True, asyncio.get_running_loop().time() + JOIN_S
        except _TooSlow:
            logger.info("no initial peer has answered within %d s; asking again", RPC_S)


class _TooSlow(Exception):
    """Nobody answered in time. On a busy machine somebody does at the next attempt."""


class _NotDialled(Exception):
    """Others cannot dial us. hivemind looks at that before the clock, so the clock may be wrong as well."""


async def _created(
    transport: Transport, initial_peers: Sequence[str], is_client: bool, deadline: float
) -> DHTNode:
    """A node, or no trace of one. Raises ConfigError, _TooSlow; _NotDialled unless `is_client`."""
    began = asyncio.get_running_loop().time()
    nodes: list[DHTNode] = []  # to clean up even what is refused before `create` returns it

    class Node(DHTNode):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            nodes.append(self)

    try:
        async with asyncio.timeout_at(deadline):
            node = await Node.create(
                p2p=MeteredP2P(transport.p2p, transport.incoming.loop_budget),
                initial_peers=list(initial_peers),
                wait_timeout=RPC_S,
                client_mode=is_client,
                record_validator=SelfCertified(),
                cache_locally=False,
                cache_on_store=False,
                cache_nearest=0,
                cache_refresh_before_expiry=0,
            )
    except BaseException as error:  # a cancellation too leaves no node behind
        may_try_again = await finish(_left(nodes[0]), within_s=2 * STOP_S)
        if isinstance(error, ValidationError):
            raise _NotDialled if "can't access" in str(error) else ConfigError(_CLOCK) from error
        is_late = asyncio.get_running_loop().time() - began >= RPC_S
        if isinstance(error, RuntimeError) and is_late and may_try_again:
            raise _TooSlow from error
        if isinstance(error, RuntimeError | TimeoutError):
            raise nobody_answers(initial_peers) from error
        raise
    _bound(node.protocol)
    return node


def _bound(protocol: DHTProtocol) -> None:
    """Give the tables their bounds, and what others handed over while we joined."""
    early = protocol.storage
    protocol.storage, protocol.cache = BoundedStorage(), BoundedStorage()
    for key, entry in early.items():
        for subkey, item in entry.value.items():
            protocol.storage.store_subkey(key, subkey, item.value, item.expiration_time)


async def _left(node: DHTNode) -> bool:
    """Leave politely, but not for long; tells whether that worked.

    p2pd may be gone already, and then there is nothing to leave.
    """
    if node.p2p._child.returncode is not None:
        return True
    try:
        async with asyncio.timeout(STOP_S):
            await node.shutdown()
    except Exception as error:  # noqa: BLE001 - whatever hivemind raises, we are gone
        logger.debug("left the DHT untidily: %s", error)
        return False
    return True
