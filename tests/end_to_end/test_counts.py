"""Counts that no machine changes: messages and bytes for each token and hop, and processes of a server."""

import asyncio
import gc
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.links import Link, free_port, maddr_of, open_link
from bench.server import descendants
from swarm.streams import FrameStream
from swarm.wire.frames import FROM_CHAIN
from tests.end_to_end.conversations import open_client
from tests.end_to_end.endings import some_ids
from tests.end_to_end.exact import small_model
from tests.end_to_end.processes import Forge, Service, open_process_swarm
from tests.end_to_end.resources import ServiceFigures
from tests.end_to_end.swarm import Offer, open_swarm

SPANS = ((0, 2), (2, 5), (5, 6))
NUM_LINKS = len(SPANS) + 1
NUM_TOKENS = 150
HIDDEN_BYTES = 64 * 4
HEADER_BYTES = 160  # of a frame, beside its hidden states
NETWORK_BYTES = 400  # the same with all that libp2p, heartbeats and look-ups in the DHT add
TOKENS_PER_CREDIT = 128
MEMORY_BYTES = 600_000_000

pytestmark = pytest.mark.timeout(120)


@dataclass
class Traffic:
    """Frames and bytes that left by all streams of this process, by who gets them."""

    chain: Counter[str] = field(default_factory=Counter)
    chain_bytes: Counter[str] = field(default_factory=Counter)
    control: Counter[str] = field(default_factory=Counter)

    @classmethod
    def so_far(cls) -> "Traffic":
        """Of the streams that are open now."""
        found = cls()
        for stream in (each for each in gc.get_objects() if type(each) is FrameStream):
            if stream._rules.decoder is FROM_CHAIN:
                found.chain[stream.remote_id] += stream.frames_out
                found.chain_bytes[stream.remote_id] += stream.bytes_out
            else:
                found.control[stream.remote_id] += stream.frames_out
        return found


async def test_a_token_is_one_frame_on_each_link_and_hardly_more_bytes_than_its_hidden_state() -> None:
    async with open_swarm(small_model("llama"), *(Offer(*span) for span in SPANS)) as swarm:
        client = await swarm.client()
        async with client.session() as session:
            await session.feed(some_ids(1, 40))
            before, began = Traffic.so_far(), time.monotonic()
            for _ in range(NUM_TOKENS):
                await session.feed([5])
            seconds, after = time.monotonic() - began, Traffic.so_far()
            assert len(session.route) == len(SPANS)
        peers = [client.peer_id, *(server.peer_id for server in swarm.servers)]
        assert after.chain - before.chain == Counter(dict.fromkeys(peers, NUM_TOKENS))
        most = NUM_TOKENS * (HIDDEN_BYTES + HEADER_BYTES)
        sent = after.chain_bytes - before.chain_bytes
        assert max(sent.values()) <= most, {peer: number / NUM_TOKENS for peer, number in sent.items()}
        told = after.control - before.control
        beats, credits = 2 * (int(seconds) + 2), NUM_TOKENS // TOKENS_PER_CREDIT + 1
        assert told.pop(client.peer_id) <= len(SPANS) * (beats + credits)
        assert all(number <= beats for number in told.values()), told


@pytest.mark.slow
async def test_on_the_network_a_token_costs_little_more_than_its_hidden_state(
    forge: Forge, talking_model: Path
) -> None:
    """What libp2p adds is counted too: encryption, streams in one connection, acknowledgements."""
    with open_process_swarm(forge, talking_model) as swarm:
        async with AsyncExitStack() as stack:
            links: list[Link] = []
            servers: list[Service] = []
            for start, end in SPANS:
                port = free_port()
                links.append(await stack.enter_async_context(open_link(port)))
                own, announced = ("--host-maddrs", maddr_of(port)), ("--announce-maddrs", links[-1].maddr)
                servers.append(swarm.begin(f"{start}:{end}", *own, *announced))
            for server in servers:
                await asyncio.to_thread(server.wait_ready)
            for server in servers:
                check_costs(server)
            client = await stack.enter_async_context(open_client(swarm.initial_peers, talking_model))
            session = await stack.enter_async_context(client.session())
            await session.feed(some_ids(1, 40))
            before = sum(link.bytes_relayed for link in links)
            for _ in range(NUM_TOKENS):
                await session.feed([5])
            sent = sum(link.bytes_relayed for link in links) - before
            assert session.counters.direct_links >= (NUM_LINKS - 2) * NUM_TOKENS
        assert HIDDEN_BYTES < sent / (NUM_TOKENS * NUM_LINKS) <= HIDDEN_BYTES + NETWORK_BYTES


def check_costs(server: Service) -> None:
    """A server is itself and p2pd, and takes little beside weights and caches, which are small here."""
    assert len(descendants(server.pid)) == 1
    figures = ServiceFigures.of(server)
    assert figures.own.resident_bytes + figures.p2pd.resident_bytes <= MEMORY_BYTES
