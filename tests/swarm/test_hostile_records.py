"""Records that strangers make, on real nodes of the DHT: tables keep their bounds, clients their routes.

What a single record must be is test_records.py's, and what a node lets in test_dht.py's. Here somebody
floods, rolls back, lies within the limits of a signed record, or answers our questions with inventions.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hivemind.dht import DHTID
from hivemind.dht.storage import DHTLocalStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from server.placement import load_of, plan_move, plan_span
from swarm.commands.status_report import Report
from swarm.dht import Dht
from swarm.dht_storage import MAX_KEYS, MAX_KEYS_PER_PEER, MAX_SUBKEYS, servers_key
from swarm.directory import ServerDirectory
from swarm.errors import NoRouteError
from swarm.identity import Identity
from swarm.network import open_network
from swarm.routing import find_route
from swarm.streams import FrameStream
from swarm.transport import Transport
from swarm.wire.frames import FROM_CLIENT, MAX_CONTROL_FRAME_BYTES
from swarm.wire.protocols import CONTROL
from swarm.wire.records import MAX_RECORD_BYTES, ServerRecord
from tests.swarm.peers import FINGERPRINT, node, sealed, server_record
from tests.swarm.test_dht import entry, fresh_identity, stored_by

NUM_BLOCKS = 4
FULL_S = 30.0
pack = msgspec.msgpack.encode


class Swarm:
    """A bootstrap node, an honest server that has announced itself, a client, and whoever a test adds."""

    def __init__(self, nodes: Sequence[tuple[Transport, Dht]]) -> None:
        (
            (self.bootstrap, self.bootstrap_dht),
            (self.server, self.server_dht),
            (self.client, self.client_dht),
        ) = nodes
        self.honest = {self.server.peer_id}

    async def found(self) -> dict[str, ServerRecord]:
        """What the client finds, by peer."""
        return {record.peer: record for record in await self.client_dht.find_servers(FINGERPRINT)}

    @property
    def tables(self) -> list[Any]:
        """What the nodes keep for others."""
        return [dht._node.protocol.storage for dht in (self.bootstrap_dht, self.server_dht)]


@asynccontextmanager
async def open_swarm() -> AsyncIterator[Swarm]:
    async with (
        node() as first,
        node(*first[0].addresses) as second,
        node(*first[0].addresses, client_only=True) as third,
    ):
        swarm = Swarm((first, second, third))
        assert await swarm.server_dht.announce(sealed(swarm.server.identity, sequence=10))
        yield swarm


# --- what nodes keep ------------------------------------------------------------------------------


async def test_a_record_that_somebody_brings_again_neither_rolls_a_server_back_nor_revives_it() -> None:
    async with open_swarm() as swarm:
        now = time.time()
        ours = swarm.server.identity
        captured = entry(ours, sequence=11, free_tokens=1, expires_at=now + 29)
        assert await stored_by(
            swarm.client_dht, servers_key(FINGERPRINT), captured[1], captured[2], captured[0]
        )
        goodbye = sealed(ours, sequence=12, state="offline", expires_at=now + 31)
        assert await swarm.server_dht.announce(goodbye)
        for older in (captured, entry(ours, sequence=3, expires_at=now + 55)):
            answers = await stored_by(
                swarm.client_dht, servers_key(FINGERPRINT), older[1], older[2], older[0]
            )
            assert answers == [[False]] * len(answers)
        record = (await swarm.found())[swarm.server.peer_id]
        assert (record.sequence, record.state) == (12, "offline")


TIMES = {
    "from the future": (20.0, 40.0),
    "from the past": (-50.0, -20.0),
    "for too long": (-10.0, 55.0),
    "from another century": (2e9, 2e9 + 30),
}


async def test_a_record_of_another_time_or_above_the_limit_enters_no_table_although_it_is_signed() -> None:
    async with open_swarm() as swarm:
        stranger, now = fresh_identity(), time.time()
        bad = {
            name: entry(stranger, issued_at=now + issued, expires_at=now + expires)
            for name, (issued, expires) in TIMES.items()
        }
        fields = msgspec.to_builtins(server_record(stranger, expires_at=now + 30))
        payload = pack(fields | {"ballast": "x" * MAX_RECORD_BYTES})
        bad["too large"] = (
            stranger.peer_id, pack(stranger.sign(b"murmur record 1\n" + payload) + payload), now + 30
        )  # fmt: skip
        for name, (peer, value, until) in bad.items():
            answers = await stored_by(swarm.client_dht, servers_key(FINGERPRINT), value, until, peer)
            assert answers
            assert all(answer in ([False], None) for answer in answers), name
        assert (await swarm.found()).keys() == swarm.honest


def nodes_known_to(swarm: Swarm) -> list[Any]:
    """Peer ids of the nodes that the client would ask; it forgets those that refuse it."""
    return list(swarm.client_dht._node.protocol.routing_table.uid_to_peer_id.values())


def servers_held(swarm: Swarm) -> set[Any]:
    """The servers of which a node has records: of that which has most."""
    key = DHTID.generate(servers_key(FINGERPRINT))
    return max(
        (set(found.value.data) for table in swarm.tables if (found := table.get(key))), key=len, default=set()
    )


async def flood(
    swarm: Swarm,
    records: Sequence[tuple[str, tuple[str, bytes, float]]],
    at_once: int = 100,
    nodes: Sequence[Any] = (),
) -> int:
    """STORE (key, entry) pairs at every node, many in one call; returns how many were taken, at all nodes."""
    protocol = swarm.client_dht._node.protocol
    taken = 0
    for peer in nodes or nodes_known_to(swarm):
        for first in range(0, len(records), at_once):
            part = records[first : first + at_once]
            keys = [DHTID.generate(key) for key, _ in part]
            peers, values, times = zip(*(stored for _, stored in part), strict=True)
            taken += sum(await protocol.call_store(peer, keys, list(values), list(times), list(peers)) or ())
    return taken


@pytest.mark.slow
async def test_a_flood_of_servers_fills_a_key_to_its_limit_and_costs_nobody_a_place() -> None:
    async with open_swarm() as swarm:
        key = servers_key(FINGERPRINT)
        strangers = [(key, entry(fresh_identity())) for _ in range(MAX_SUBKEYS + 50)]
        nodes, held = nodes_known_to(swarm), servers_held(swarm)
        async with asyncio.timeout(FULL_S):
            while len(held) < MAX_SUBKEYS:  # who asks for too much at once is refused, and comes again
                new = [each for each in strangers if each[1][0] not in held]
                await flood(swarm, new, nodes=nodes)
                held = servers_held(swarm)
                await swarm.server_dht.announce(sealed(swarm.server.identity, sequence=len(held)))
        assert len(held) == MAX_SUBKEYS
        assert await swarm.server_dht.announce(
            sealed(swarm.server.identity, sequence=2 * MAX_SUBKEYS, expires_at=time.time() + 40)
        )
        async with asyncio.timeout(FULL_S):  # who flooded is not answered for a while
            while swarm.server.peer_id not in (found := await swarm.found()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert found[swarm.server.peer_id].sequence == 2 * MAX_SUBKEYS
        assert len(found) <= MAX_SUBKEYS


async def test_a_flood_of_models_fills_the_table_to_its_limit_and_one_peer_only_its_share() -> None:
    async with open_swarm() as swarm:
        greedy = fresh_identity()
        models = [f"{number:032x}" for number in range(MAX_KEYS + 6)]
        of_one = [(servers_key(model), entry(greedy, fingerprint=model)) for model in models]
        assert await flood(swarm, of_one) <= MAX_KEYS_PER_PEER * len(swarm.tables)
        of_many = [(servers_key(model), entry(fresh_identity(), fingerprint=model)) for model in models]
        await flood(swarm, of_many)
        assert max(len(table) for table in swarm.tables) <= MAX_KEYS
        assert (await swarm.found()).keys() == swarm.honest


# --- what nodes answer ----------------------------------------------------------------------------


class LyingStorage(DHTLocalStorage):  # type: ignore[misc]
    """The table of a node that keeps what it likes and takes nothing."""

    def store_subkey(self, *_: Any, **__: Any) -> bool:
        return True


def lie(dht: Dht, *entries: tuple[str, bytes, float]) -> None:
    """From now on this node answers with these records alone."""
    table = LyingStorage()
    for peer, value, expires_at in entries:
        DHTLocalStorage.store_subkey(table, DHTID.generate(servers_key(FINGERPRINT)), peer, value, expires_at)
    dht._node.protocol.storage = table


async def test_a_node_that_answers_with_forged_records_hides_and_adds_nobody() -> None:
    async with open_swarm() as swarm, node(*swarm.bootstrap.addresses) as (liar, liar_dht):
        victim, until = swarm.server.peer_id, time.time() + 50
        forged = entry(liar.identity, expires_at=until)[1]
        mine = entry(liar.identity, expires_at=until, fingerprint="e" * 32)[1]
        for answer in (
            (victim, forged, until),  # the honest server, in the liar's words
            (victim, pack(b"x" * 100_000), until),
            (liar.peer_id, mine, until),  # another model
            (liar.peer_id, forged, until + 1000),
        ):
            lie(liar_dht, answer)
            found = await swarm.found()
            assert found.keys() == swarm.honest
            assert found[victim].sequence == 10


async def test_a_node_that_answers_with_thousands_of_records_is_not_believed_beyond_the_limit() -> None:
    async with open_swarm() as swarm, node(*swarm.bootstrap.addresses) as (_, liar_dht):
        lie(
            liar_dht,
            *(entry(fresh_identity(), expires_at=time.time() + 50) for _ in range(MAX_SUBKEYS + 200)),
        )
        directory = ServerDirectory(FINGERPRINT, swarm.client_dht.find_servers)
        await directory.refresh()
        assert len(directory.servers) <= MAX_SUBKEYS


# --- what clients and servers make of records -----------------------------------------------------


NUMBERS = st.sampled_from([0.0, 5e-324, 1e-320, 1e-300, 1e-9, 0.5, 1.0, 1e6, 1e9])
_FIELDS: Any = st.fixed_dictionaries(
    {},
    optional={
        "start": st.integers(0, NUM_BLOCKS),
        "end": st.sampled_from([1, 2, 3, NUM_BLOCKS, NUM_BLOCKS + 1, 65_535]),
        "state": st.sampled_from(["joining", "online", "draining", "offline"]),
        "throughput": NUMBERS,
        "inference_rps": NUMBERS,
        "free_tokens": st.sampled_from([0, 1, 2**53]),
        "queue_depth": st.sampled_from([0, 1, 1_000_000]),
        "sequence": st.sampled_from([0, 2**53]),
        "addresses": st.lists(st.text(max_size=20) | st.just("/ip4/0.0.0.0/tcp/0"), max_size=8).map(tuple),
        "rtt_s": st.sampled_from([0.0, 5e-324, 60.0]),
    },
)
LIES = _FIELDS.filter(lambda lie: lie.get("start", 0) < lie.get("end", NUM_BLOCKS))
HONEST = fresh_identity()
LIARS = [fresh_identity() for _ in range(3)]


def told(liar: Identity, changes: dict[str, Any]) -> ServerRecord:
    """A record that the wire lets pass, about whose neighbours somebody lies too."""
    rtts_s = dict.fromkeys([HONEST.peer_id], changes["rtt_s"]) if "rtt_s" in changes else {}
    record = server_record(liar, **{n: c for n, c in changes.items() if n != "rtt_s"}, rtts_s=rtts_s)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=ServerRecord)


@given(lies=st.lists(LIES, max_size=3))
@settings(max_examples=300)
def test_whatever_records_say_a_route_covers_every_block_with_servers_that_have_it(
    lies: list[dict[str, Any]],
) -> None:
    servers = [server_record(HONEST), *(told(liar, lie) for liar, lie in zip(LIARS, lies, strict=False))]
    known = {server.peer: server for server in servers}
    route = find_route(servers, num_blocks=NUM_BLOCKS, rtts_s={})
    assert [block for hop in route for block in range(hop.span.start, hop.span.end)] == list(
        range(NUM_BLOCKS)
    )
    for hop in route:
        assert known[hop.peer_id].span.contains(hop.span)
        assert known[hop.peer_id].state == "online"
        assert known[hop.peer_id].end <= NUM_BLOCKS


@given(lies=st.lists(LIES, min_size=1, max_size=3))
@settings(max_examples=200)
def test_whatever_records_say_servers_can_plan_and_people_can_look(lies: list[dict[str, Any]]) -> None:
    servers = [told(liar, lie) for liar, lie in zip(LIARS, lies, strict=False)]
    assert plan_span(servers, NUM_BLOCKS, 2, 100.0).end <= NUM_BLOCKS
    assert load_of(servers, NUM_BLOCKS).shape == (NUM_BLOCKS,)
    plan_move([server for server in servers if server.end <= NUM_BLOCKS], NUM_BLOCKS)
    report = Report("m", FINGERPRINT, NUM_BLOCKS, tuple(servers), time.time())
    assert msgspec.json.decode(report.as_json())["num_blocks"] == NUM_BLOCKS


def test_a_server_of_blocks_outside_of_the_model_is_in_no_route() -> None:
    outside = [server_record(liar, start=at, end=at + 4) for at, liar in enumerate(LIARS, start=1)]
    with pytest.raises(NoRouteError):
        find_route(outside, num_blocks=NUM_BLOCKS, rtts_s={})


ABSURD = {
    "no addresses": (),
    "nonsense": ("nonsense", "/", "//", "/ip4/999.1.1.1/tcp/1", "\u202e" * 100, "/ip4/127.0.0.1/tcp/70000"),
    "nobody": ("/ip4/127.0.0.1/tcp/9", "/ip4/127.0.0.1/tcp/9/ws"),
    "relays that are none": (f"/p2p/{HONEST.peer_id}/p2p-circuit", "/p2p-circuit"),
}


@pytest.mark.slow
async def test_the_best_servers_of_all_that_nobody_can_reach_cost_a_client_one_try_each() -> None:
    async with open_swarm() as swarm:
        boast = {"inference_rps": 1e9, "throughput": 1e9, "free_tokens": 2**53}
        liars = [entry(fresh_identity(), **boast, addresses=addresses) for addresses in ABSURD.values()]
        assert await flood(swarm, [(servers_key(FINGERPRINT), liar) for liar in liars]) >= len(liars)
        await swarm.server.serve(CONTROL, _listen, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_CLIENT)
        await swarm.server_dht.announce(
            sealed(swarm.server.identity, sequence=11, addresses=swarm.server.addresses)
        )
        async with open_network(swarm.client, swarm.client_dht, FINGERPRINT, NUM_BLOCKS) as network:
            assert len(network.directory.servers) == len(liars) + 1
            async with asyncio.timeout(20):
                route = await network.reach_route((), (), 10.0)
            assert {hop.peer_id for hop in route} == swarm.honest
            assert network.health.avoiding().keys() == {peer for peer, _, _ in liars}


async def _listen(stream: FrameStream) -> None:
    while True:
        await stream.read()
