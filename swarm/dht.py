"""Announce records and look them up, in hivemind's DHT. The only file that imports it.

Every Murmur node refuses records that do not prove themselves (wire/records.py), at its table's door and
in answers alike, and its table is bounded. What hivemind reads before our code runs, p2pd bounds: 4 MiB.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from hivemind.dht import DHTID, DHTNode
from hivemind.dht.crypto import DHTRecord
from hivemind.dht.protocol import DHTProtocol, ValidationError
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import RecordValidatorBase

from swarm.background import finish
from swarm.errors import ConfigError, PeerUnreachable
from swarm.listening import nobody_answers
from swarm.transport import Transport, native_id
from swarm.wire.blocks import PeerId
from swarm.wire.records import (
    BadRecord,
    ModelRecord,
    Record,
    ServerRecord,
    open_any_record,
    open_model_record,
    open_record,
    verified_record,
)

logger = logging.getLogger(__name__)

MAX_SUBKEYS = 1024
MAX_KEYS = 64
JOIN_S = 8.0
RPC_S = 3.0
STOP_S = 3.0
RENEW_S = 10.0
MODELS_KEY = "murmur.models"
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

    async def announce(self, raw: bytes) -> bool:
        """Store a signed record of ours at the nodes nearest to its key; tell whether any took it.

        Raises BadRecord if it would be refused everywhere.
        """
        record = open_any_record(raw, self._transport.peer_id, time.time(), slack_s=0.0)
        await self._rejoin()
        return bool(await self._node.store(_key_of(record), raw, record.expires_at, subkey=record.peer))

    async def find_servers(self, fingerprint: str) -> tuple[ServerRecord, ...]:
        """Verified records of the servers of one model, by peer id.

        Goodbyes (`offline`) are among them: whoever holds an older record learns that it is no longer true.
        """
        records = []
        for peer, raw in (await self._find(_servers_key(fingerprint))).items():
            try:
                record = open_record(raw, peer, time.time())
            except BadRecord as error:
                logger.debug("dropped a record of %s: %s", peer, error)
                continue
            if record.fingerprint == fingerprint:
                records.append(record)
        return tuple(sorted(records, key=lambda record: record.peer))

    async def find_models(self) -> tuple[ModelRecord, ...]:
        """What servers say that they host, by name: an index for people, whose names nobody vouches for."""
        records = []
        for peer, raw in (await self._find(MODELS_KEY)).items():
            try:
                records.append(open_model_record(raw, peer, time.time()))
            except BadRecord as error:
                logger.debug("dropped a record of %s: %s", peer, error)
        return tuple(sorted(records, key=lambda record: (record.name, record.fingerprint, record.peer)))

    async def refresh_neighbours(self) -> None:
        """Look up a random key, as a node without traffic should, so that lost peers are noticed."""
        await self._rejoin()
        await self._node.find_nearest_nodes([DHTID.generate()])

    async def _find(self, key: str) -> dict[str, bytes]:
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
async def open_dht(
    transport: Transport, initial_peers: Sequence[str] = (), is_client: bool = False
) -> AsyncIterator[Dht]:
    """Join the DHT of `initial_peers`; without any, start a new one. Leaves it with the block.

    A client asks and announces but keeps nothing for others, which is right for a short stay. Raises
    ConfigError within JOIN_S if none of them answers, or if our clock differs from theirs by more than 3 s.
    """
    others = [peer for peer in initial_peers if not peer.endswith(f"/p2p/{transport.peer_id}")]
    node = await _joined(transport, others, is_client or not transport.addresses)
    try:
        yield Dht(node, transport, initial_peers)
    finally:
        await finish(_left(node), within_s=2 * STOP_S)


async def announce_forever(
    dht: Dht, make_record: Callable[[], bytes], changed: asyncio.Event, *, renew_s: float = RENEW_S
) -> None:
    """Announce what `make_record` returns every `renew_s`, and as soon as `changed` is set."""
    while True:
        changed.clear()
        if not await dht.announce(make_record()):
            logger.warning("nobody took our record; trying again in %d s", renew_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(renew_s):
                await changed.wait()


async def _joined(transport: Transport, initial_peers: Sequence[str], is_client: bool) -> DHTNode:
    """A node that others may ask; behind a firewall, one that only asks. Raises ConfigError."""
    try:
        return await _created(transport, initial_peers, is_client)
    except ValidationError as error:
        if "can't access" not in str(error):
            raise ConfigError(_CLOCK) from error
    logger.info("peers cannot dial us: we use the DHT without serving it")
    return await _created(transport, initial_peers, is_client=True)


async def _created(transport: Transport, initial_peers: Sequence[str], is_client: bool) -> DHTNode:
    nodes: list[DHTNode] = []  # to clean up even what is refused before `create` returns it

    class Node(DHTNode):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            nodes.append(self)

    try:
        async with asyncio.timeout(JOIN_S):
            node = await Node.create(
                p2p=transport.p2p,
                initial_peers=list(initial_peers),
                wait_timeout=RPC_S,
                client_mode=is_client,
                record_validator=_SelfCertified(),
                cache_locally=False,
                cache_on_store=False,
                cache_nearest=0,
                cache_refresh_before_expiry=0,
            )
    except BaseException as error:
        await finish(_left(nodes[0]), within_s=2 * STOP_S)
        if isinstance(error, RuntimeError | TimeoutError):
            raise ConfigError(nobody_answers(initial_peers)) from error
        raise
    _bound(node.protocol)
    return node


def _bound(protocol: DHTProtocol) -> None:
    """Give the tables their bounds, and what others handed over while we joined."""
    early = protocol.storage
    protocol.storage, protocol.cache = _BoundedStorage(), _BoundedStorage()
    for key, entry in early.items():
        for subkey, item in entry.value.items():
            protocol.storage.store_subkey(key, subkey, item.value, item.expiration_time)


async def _left(node: DHTNode) -> None:
    """Leave politely, but not for long: p2pd may be gone already, and then there is nothing to leave."""
    if node.p2p._child.returncode is not None:
        return
    try:
        async with asyncio.timeout(STOP_S):
            await node.shutdown()
    except Exception as error:  # noqa: BLE001 - whatever hivemind raises, we are gone
        logger.debug("left the DHT untidily: %s", error)


def _servers_key(fingerprint: str) -> str:
    return f"murmur.servers.{fingerprint}"


def _key_of(record: Record) -> str:
    return _servers_key(record.fingerprint) if isinstance(record, ServerRecord) else MODELS_KEY


class _SelfCertified(RecordValidatorBase):  # type: ignore[misc]
    """Accepts what the peer that the sub-key names has signed, under the key and until the time in it.

    The clock is left to the table: one entry that a validator refuses makes hivemind drop the whole answer,
    and what is in time by the clock of whoever answers need not be so by ours.
    """

    def validate(self, record: DHTRecord) -> bool:
        return _opened(record.key, record.subkey, record.value, record.expiration_time) is not None


def _opened(key: bytes, subkey: bytes, value: bytes, expiration_time: float) -> Record | None:
    """The record in an entry of the DHT, or None. `subkey` and `value` are packed by hivemind, in msgpack."""
    try:
        peer = msgspec.msgpack.decode(subkey, type=str)
        record = verified_record(msgspec.msgpack.decode(value, type=bytes), peer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    is_at_home = key == DHTID.generate(_key_of(record)).to_bytes()
    # The entry's own time is not signed: a stranger must not prolong a record that was withdrawn.
    return record if is_at_home and expiration_time == record.expires_at else None


class _BoundedStorage(DHTLocalStorage):  # type: ignore[misc]
    """A table with room for MAX_KEYS keys of MAX_SUBKEYS records; a newcomer to a full one is refused.

    Refusing newcomers, not dropping the oldest, keeps a flood of fresh peers from pushing out those that
    renew their records. A record whose sequence number is below the stored one's never replaces it.
    """

    def store(self, key: DHTID, value: Any, expiration_time: float, subkey: Any = None) -> bool:
        """Keep one record; plain values and whole dictionaries have no place here."""
        return subkey is not None and self.store_subkey(key, subkey, value, expiration_time)

    def store_subkey(self, key: DHTID, subkey: Any, value: bytes, expiration_time: float) -> bool:
        """Keep `value`, already validated, if it is in time, newer than what is there, and has room."""
        record, entry = _in_time(subkey, value), super().get(key)
        if record is None:
            return False
        records = DictionaryDHTValue() if entry is None else entry.value
        held = records.get(subkey)
        if held is None and (len(records) >= MAX_SUBKEYS or (entry is None and len(self) >= MAX_KEYS)):
            return False
        if held is not None and not _is_newer(record, subkey, held):
            return False
        is_stored: bool = records.store(subkey, value, expiration_time)
        if is_stored:
            super().store(key, records, records.latest_expiration_time)
        return is_stored

    def get(self, key: DHTID) -> Any:
        """A copy: hivemind merges what strangers answer into what this returns."""
        entry = super().get(key)
        if entry is None:
            return None
        copy = DictionaryDHTValue()
        for subkey, item in entry.value.items():
            copy.store(subkey, item.value, item.expiration_time)
        return type(entry)(copy, entry.expiration_time)


def _in_time(peer: str, value: bytes) -> Record | None:
    try:
        return open_any_record(msgspec.msgpack.decode(value, type=bytes), peer, time.time())
    except (BadRecord, msgspec.MsgspecError):
        return None


def _is_newer(record: Record, peer: str, held: Any) -> bool:
    before = _in_time(peer, held.value)
    return before is None or (record.expires_at > before.expires_at and record.sequence >= before.sequence)
