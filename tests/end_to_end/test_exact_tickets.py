"""An epoch is written down before it is used: a client that comes back is never behind its own past."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

import msgspec
import pytest

from swarm.connections import Connection
from swarm.inference import InferenceSession, open_session
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.session import Ticket
from swarm.streams import FrameStream
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.messages import Hello, Message
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import Offer, Swarm, open_swarm

OFFERS = [Offer(0, 3), Offer(3, 6, blocks_per_s=1e5), Offer(3, 6, blocks_per_s=100.0)]


class DiskFull(Exception):
    """Nothing can be written down any more."""


class Diary:
    """What is written down and what leaves, in order, as ("saved" or "sent", epoch)."""

    def __init__(self, last_page: int = 1000) -> None:
        self.entries: list[tuple[str, int]] = []
        self._last_page = last_page

    def save(self, ticket: bytes) -> None:
        """Note a ticket. Raises DiskFull if its epoch is beyond our last page."""
        epoch = msgspec.msgpack.decode(ticket, type=Ticket).epoch
        if epoch > self._last_page:
            raise DiskFull
        self.entries.append(("saved", epoch))

    def note_sent(self, message: Message) -> None:
        """Note under which epoch a message leaves, if it belongs to any."""
        epoch: int | None = getattr(message, "epoch", None)
        if epoch is not None:
            self.entries.append(("sent", epoch))

    def epochs(self, kind: str) -> list[int]:
        """The epochs of all entries of a kind, each once, in order."""
        return list(dict.fromkeys(epoch for what, epoch in self.entries if what == kind))

    def check(self) -> None:
        """Nothing left under an epoch that was not saved before."""
        assert self.epochs("sent") == self.epochs("saved")
        for epoch in self.epochs("sent"):
            assert self.entries.index(("saved", epoch)) < self.entries.index(("sent", epoch))


class WatchedConnection:
    """A connection on which a diary is kept."""

    def __init__(self, connection: Connection, diary: Diary) -> None:
        self._connection = connection
        self._diary = diary

    def send(self, session_id: SessionId, listener: InferenceSession, message: Message) -> None:
        self._diary.note_sent(message)
        self._connection.send(session_id, listener, message)

    def forget(self, session_id: SessionId) -> None:
        self._connection.forget(session_id)


class WatchedNetwork(Network):
    """A network that keeps a diary of what goes to servers."""

    diary: Diary

    def connection(self, peer_id: PeerId) -> Connection | None:
        found = super().connection(peer_id)
        return found and cast(Connection, WatchedConnection(found, self.diary))

    async def open_chain(self, peer_id: PeerId, hello: Hello) -> FrameStream:
        self.diary.note_sent(hello)
        return await super().open_chain(peer_id, hello)


@asynccontextmanager
async def a_swarm() -> AsyncIterator[tuple[Swarm, WatchedNetwork]]:
    """Two hops with a spare for the second one, and a client's network that is watched."""
    async with open_swarm(small_model("llama"), *OFFERS) as swarm:
        client = await swarm.client()
        network = WatchedNetwork(**vars(client.network))
        network.diary = Diary()
        yield swarm, network
        await swarm.check_clean()


def open_watched(
    network: WatchedNetwork, ticket: bytes | None = None, ids: Sequence[int] = ()
) -> AbstractAsyncContextManager[InferenceSession]:
    """A session whose tickets go into the diary."""
    inputs = Inputs(small_model("llama").ends.embed)
    inputs.append_ids(ids)
    return open_session(network, inputs, ticket=ticket, save_ticket=network.diary.save)


async def test_an_epoch_is_written_down_before_anything_leaves_under_it() -> None:
    async with a_swarm() as (swarm, network):
        async with open_watched(network) as session:
            await session.feed(prompt(1))
            swarm.path(session)[1].kill()
            ids = await check_answer(swarm.model, session, prompt(1, 9), 4)
            ticket = session.detach()
        async with open_watched(network, ticket, ids) as session:
            await check_answer(swarm.model, session, ids, 4)
        assert network.diary.epochs("sent")[:3] == [1, 2, 3], "opened, re-routed, re-attached"
        network.diary.check()


async def test_an_epoch_that_a_relayed_link_costs_is_written_down_as_well() -> None:
    async with a_swarm() as (swarm, network):
        first, *others = swarm.servers
        first.cannot_reach.update(server.peer_id for server in others)
        async with open_watched(network) as session:
            await session.feed(prompt(4))
        assert network.diary.epochs("sent")[:2] == [1, 2]
        network.diary.check()


async def test_nothing_leaves_under_an_epoch_that_cannot_be_written_down() -> None:
    async with a_swarm() as (swarm, network):
        for last_page in (0, 1):
            network.diary = Diary(last_page)
            await lose_a_server_with_a_full_disk(swarm, network)
            assert network.diary.epochs("sent") == list(range(1, last_page + 1))


async def lose_a_server_with_a_full_disk(swarm: Swarm, network: WatchedNetwork) -> None:
    """Open a session, feed it, and go on after a loss, unless it comes to nothing before, as it must."""
    try:
        async with open_watched(network) as session:
            await session.feed(prompt(2))
            swarm.path(session)[1].kill()
            await session.feed(prompt(3))
        pytest.fail("the session went on under an epoch that was not written down")
    except* DiskFull:
        pass
