"""The DHT on real peers: announced records are found, and what does not prove itself never enters a table."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hivemind.utils.timed_storage
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht import DHTID
from hivemind.dht.storage import DictionaryDHTValue

from swarm.background import running
from swarm.dht import RPC_S, Dht, announce_forever, open_dht
from swarm.dht_storage import MAX_KEYS, MAX_KEYS_PER_PEER, MAX_SUBKEYS, BoundedStorage, opened
from swarm.directory import ServerDirectory
from swarm.errors import ConfigError
from swarm.identity import Identity, temporary_identity
from swarm.transport import Transport, open_transport
from swarm.wire.keys import peer_id_of
from swarm.wire.records import BadRecord, ModelRecord, seal_record
from tests.swarm.peers import FINGERPRINT, node, sealed

SERVERS_KEY = f"murmur.servers.{FINGERPRINT}"
pack = msgspec.msgpack.encode


@pytest.fixture
def stranger() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


@asynccontextmanager
async def three() -> AsyncIterator[tuple[Dht, Transport, Dht, Dht]]:
    """A bootstrap node, a server beside it, and a client."""
    async with (
        node() as (bootstrap, first),
        node(*bootstrap.addresses) as (server, second),
        node(*bootstrap.addresses, client_only=True) as (_, third),
    ):
        yield first, server, second, third


async def test_an_announced_server_is_found_everywhere_until_its_goodbye() -> None:
    async with three() as (bootstrap, server, server_dht, client_dht):
        assert await server_dht.announce(sealed(server.identity))
        for dht in (bootstrap, server_dht, client_dht):
            (record,) = await dht.find_servers(FINGERPRINT)
            assert (record.peer, record.state) == (server.peer_id, "online")
        assert await client_dht.find_servers("another model") == ()
        goodbye = sealed(server.identity, sequence=2, state="offline", expires_at=time.time() + 31)
        assert await server_dht.announce(goodbye)
        for dht in (bootstrap, server_dht, client_dht):
            (record,) = await dht.find_servers(FINGERPRINT)
            assert (record.peer, record.state) == (server.peer_id, "offline")


async def test_a_directory_that_only_polls_forgets_a_server_at_the_poll_after_its_goodbye() -> None:
    async with three() as (_, server, server_dht, client_dht):
        directory = ServerDirectory(FINGERPRINT, client_dht.find_servers)
        await server_dht.announce(sealed(server.identity))
        await directory.refresh()
        assert directory.find(server.peer_id) is not None
        await server_dht.announce(
            sealed(server.identity, sequence=2, state="offline", expires_at=time.time() + 31)
        )
        await directory.refresh()
        assert directory.servers == ()


async def test_a_record_that_expired_is_not_found() -> None:
    async with three() as (_, server, server_dht, client_dht):
        soon = time.time() + 3
        await server_dht.announce(sealed(server.identity, expires_at=soon))
        assert len(await client_dht.find_servers(FINGERPRINT)) == 1
        await asyncio.sleep(soon + 0.01 - time.time())
        assert await client_dht.find_servers(FINGERPRINT) == ()


async def test_the_newest_record_wins() -> None:
    async with three() as (_, server, server_dht, client_dht):
        await server_dht.announce(sealed(server.identity))
        await server_dht.announce(sealed(server.identity, sequence=2, free_tokens=7))
        (record,) = await client_dht.find_servers(FINGERPRINT)
        assert record.free_tokens == 7


async def test_a_client_is_no_part_of_the_table() -> None:
    async with three() as (bootstrap, _, server_dht, client_dht):
        assert bootstrap.num_peers == server_dht.num_peers == 1
        assert client_dht.num_peers >= 1


async def test_we_cannot_announce_what_is_not_ours(stranger: Identity) -> None:
    async with node() as (_, dht):
        with pytest.raises(BadRecord):
            await dht.announce(sealed(stranger))


async def stored_by(dht: Dht, key: str, value: bytes, expires_at: float, subkey: Any) -> Any:
    """What a peer answers to a hostile STORE of ours, sent past our own checks: one answer per replica."""
    protocol = dht._node.protocol
    peers = [peer for _, peer in protocol.routing_table.get_nearest_neighbors(DHTID.generate(key), 5)]
    return [
        await protocol.call_store(peer, [DHTID.generate(key)], [value], [expires_at], [subkey])
        for peer in peers
    ]


async def test_no_record_enters_a_table_without_proving_itself(stranger: Identity) -> None:
    async with three() as (_, server, server_dht, client_dht):
        now = time.time()
        good, mine = sealed(stranger, expires_at=now + 30), sealed(server.identity, expires_at=now + 30)
        longer = sealed(stranger, expires_at=now + 90)
        hostile: list[tuple[str, bytes, float, Any]] = [
            (SERVERS_KEY, pack(good), now + 30, server.peer_id),  # another one's record under our name
            (SERVERS_KEY, pack(good[:-1] + b"x"), now + 30, stranger.peer_id),
            (SERVERS_KEY, pack(good), now + 40, stranger.peer_id),  # prolonged
            (SERVERS_KEY, pack(longer), now + 90, stranger.peer_id),
            (SERVERS_KEY, pack(b"x" * 5000), now + 30, stranger.peer_id),
            (SERVERS_KEY, b"\xc1", now + 30, stranger.peer_id),
            (SERVERS_KEY, pack(good), now + 30, 5),
            (SERVERS_KEY, pack(good), now + 30, None),  # a plain value in place of all servers
            ("murmur.models", pack(good), now + 30, stranger.peer_id),
            ("anything else", pack(good), now + 30, stranger.peer_id),
            ("anything else", pack(good), float("nan"), stranger.peer_id),
        ]
        for key, value, expires_at, subkey in hostile:
            assert await stored_by(server_dht, key, value, expires_at, subkey) == [[False]]
        assert await client_dht.find_servers(FINGERPRINT) == ()
        assert await stored_by(server_dht, SERVERS_KEY, pack(good), now + 30, stranger.peer_id) == [[True]]
        assert await stored_by(server_dht, SERVERS_KEY, pack(mine), now + 30, server.peer_id) == [[True]]
        assert len(await client_dht.find_servers(FINGERPRINT)) == 2


async def test_nobody_erases_the_servers_of_others_with_a_newer_dictionary(stranger: Identity) -> None:
    async with three() as (_, server, server_dht, client_dht):
        await server_dht.announce(sealed(server.identity))
        until = time.time() + 50
        dictionary = DictionaryDHTValue(maxsize=1)
        dictionary.store(stranger.peer_id, pack(sealed(stranger, expires_at=until)), until)
        protocol = server_dht._node.protocol
        for _, peer in protocol.routing_table.get_nearest_neighbors(DHTID.generate(SERVERS_KEY), 5):
            await protocol.call_store(peer, [DHTID.generate(SERVERS_KEY)], [dictionary], [until])
        found = await client_dht.find_servers(FINGERPRINT)
        assert {record.peer for record in found} == {server.peer_id, stranger.peer_id}


def entry(identity: Identity, **changes: Any) -> tuple[str, bytes, float]:
    expires_at = changes.setdefault("expires_at", time.time() + 30)
    return identity.peer_id, pack(sealed(identity, **changes)), expires_at


def fresh_identity() -> Identity:
    """An identity without a file."""
    key = Ed25519PrivateKey.generate()
    return Identity(Path("/dev/null"), peer_id_of(key.public_key().public_bytes_raw()), key)


def test_a_lower_sequence_number_does_not_win_however_late_it_expires(stranger: Identity) -> None:
    storage, key = BoundedStorage(), DHTID.generate("k")
    now = time.time()
    assert storage.store_subkey(key, *entry(stranger, sequence=5, expires_at=now + 20))
    assert not storage.store_subkey(key, *entry(stranger, sequence=4, expires_at=now + 40))
    assert storage.store_subkey(key, *entry(stranger, sequence=6, expires_at=now + 40))
    assert not storage.store_subkey(key, *entry(stranger, sequence=6, expires_at=now + 40))


def test_a_record_from_the_future_or_the_past_enters_no_table_and_spoils_no_answer(
    stranger: Identity,
) -> None:
    storage, key, now = BoundedStorage(), DHTID.generate(SERVERS_KEY), time.time()
    for issued_at in (now + 10, now - 40):
        record = entry(stranger, issued_at=issued_at, expires_at=issued_at + 30)
        assert not storage.store_subkey(key, *record)
        assert opened(key.to_bytes(), pack(record[0]), *record[1:]) is not None


def test_a_full_table_refuses_newcomers_and_still_renews_the_others(stranger: Identity) -> None:
    storage, key = BoundedStorage(), DHTID.generate("k")
    assert storage.store_subkey(key, *entry(stranger))
    for number in range(1, MAX_SUBKEYS + 5):
        assert storage.store_subkey(key, *entry(fresh_identity())) == (number < MAX_SUBKEYS)
    assert storage.store_subkey(key, *entry(stranger, sequence=2, expires_at=time.time() + 40))
    assert len(storage.get(key).value) == MAX_SUBKEYS
    for number in range(MAX_KEYS):
        newcomer = entry(fresh_identity())
        assert storage.store_subkey(DHTID.generate(number), *newcomer) == (number < MAX_KEYS - 1)


def test_one_identity_cannot_take_all_keys_and_still_renews_its_own(stranger: Identity) -> None:
    storage = BoundedStorage()
    for number in range(MAX_KEYS):
        is_stored = storage.store_subkey(DHTID.generate(number), *entry(stranger))
        assert is_stored == (number < MAX_KEYS_PER_PEER)
    assert storage.store_subkey(DHTID.generate(MAX_KEYS), *entry(fresh_identity()))
    assert not storage.store_subkey(DHTID.generate(MAX_KEYS), *entry(stranger))
    assert storage.store_subkey(DHTID.generate(0), *entry(stranger, sequence=2, expires_at=time.time() + 40))


def test_a_peer_whose_records_expired_has_room_for_others(
    stranger: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, now = BoundedStorage(), time.time()
    for number in range(MAX_KEYS_PER_PEER):
        assert storage.store_subkey(DHTID.generate(number), *entry(stranger, expires_at=now + 10))
    monkeypatch.setattr(hivemind.utils.timed_storage, "get_dht_time", lambda: now + 11)
    assert storage.store_subkey(DHTID.generate("k"), *entry(stranger))


def test_a_flood_of_one_record_does_not_grow_the_table(stranger: Identity) -> None:
    storage, key = BoundedStorage(), DHTID.generate("k")
    record = entry(stranger)
    for _ in range(1000):
        storage.store_subkey(key, *record)
    assert len(storage.expiration_heap) == 1


def test_what_a_search_merges_into_an_answer_does_not_reach_the_table(stranger: Identity) -> None:
    storage, key = BoundedStorage(), DHTID.generate("k")
    storage.store_subkey(key, *entry(stranger))
    storage.get(key).value.store("somebody", b"y", time.time() + 30)
    assert len(storage.get(key).value) == 1


async def test_models_are_listed_for_people() -> None:
    async with three() as (_, server, server_dht, client_dht):
        now = time.time()
        record = ModelRecord(
            peer=server.peer_id, sequence=1, issued_at=now, expires_at=now + 30, name="a model",
            fingerprint=FINGERPRINT, num_blocks=8,
        )  # fmt: skip
        assert await server_dht.announce(seal_record(record, server.identity.sign))
        assert await client_dht.find_models() == (record,)
        assert await client_dht.find_servers(FINGERPRINT) == ()


async def until_found(dht: Dht, *, sequence: int) -> None:
    """Look until a record of at least `sequence` is there: the DHT tells nobody of changes."""
    while all(record.sequence < sequence for record in await dht.find_servers(FINGERPRINT)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_record_is_announced_again_as_soon_as_it_changes() -> None:
    async with three() as (_, server, server_dht, client_dht):
        sequence, changed = 0, asyncio.Event()

        async def make_record() -> bytes:
            nonlocal sequence
            sequence += 1
            return sealed(server.identity, sequence=sequence)

        async with running(announce_forever(server_dht, make_record, changed)), asyncio.timeout(10):
            await until_found(client_dht, sequence=1)
            changed.set()
            await until_found(client_dht, sequence=2)


async def test_a_server_is_found_again_after_its_bootstrap_node_was_restarted(stranger: Identity) -> None:
    async with AsyncExitStack() as first_life:
        bootstrap = await first_life.enter_async_context(open_transport(stranger))
        await first_life.enter_async_context(open_dht(bootstrap))
        (address,) = bootstrap.addresses
        host = address.partition("/p2p/")[0]
        async with node(address) as (server, server_dht):
            await first_life.aclose()
            await server_dht.announce(sealed(server.identity, sequence=1))
            assert server_dht.num_peers == 0

            async def make_record() -> bytes:
                return sealed(server.identity)

            async with (
                asyncio.timeout(20),
                open_transport(stranger, host_maddrs=(host,)) as bootstrap,
                open_dht(bootstrap),
                node(address, client_only=True) as (_, client_dht),
                running(announce_forever(server_dht, make_record, asyncio.Event(), renew_s=0.1)),
            ):
                await until_found(client_dht, sequence=1)


SKEWED = """
import asyncio, time
import hivemind.dht.protocol
hivemind.dht.protocol.get_dht_time = lambda: time.time() + {skew}
if not {can_dial_us}:
    async def call_ping(*_, **__): pass
    hivemind.dht.protocol.DHTProtocol.call_ping = call_ping
from tests.swarm.peers import node
async def main():
    async with node() as (transport, _):
        print(transport.addresses[0], flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("skew", "can_dial_us"),
    [
        pytest.param(-10, True, marks=pytest.mark.slow),
        pytest.param(10, True, marks=pytest.mark.slow),
        (10, False),
    ],
)
async def test_a_clock_that_differs_is_one_sentence_also_behind_nat(skew: int, can_dial_us: bool) -> None:
    source = SKEWED.format(skew=skew, can_dial_us=can_dial_us)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        with pytest.raises(ConfigError, match="clock differs"):
            async with node(address):
                pass
    finally:
        process.kill()
        await process.wait()


async def test_initial_peers_that_speak_no_dht_are_one_sentence() -> None:
    async with open_transport() as silent:
        with pytest.raises(ConfigError, match="none of the initial peers answers"):
            async with node(*silent.addresses):
                pass


@pytest.mark.slow
async def test_a_peer_too_busy_to_answer_the_first_time_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "swarm.dht")
    async with node() as (busy, _), open_transport() as transport:
        await transport.connect(busy.peer_id, busy.addresses)
        process = busy.p2p._child
        process.send_signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(RPC_S + 1, process.send_signal, signal.SIGCONT)
        async with open_dht(transport, busy.addresses) as dht:
            assert dht.num_peers == 1
    assert "asking again" in caplog.text
