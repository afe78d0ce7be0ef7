"""An epoch is written down before it is used: a client that comes back is never behind its own past."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

import msgspec
import pytest

from swarm.connections import Connection, Listener
from swarm.epochs import AHEAD
from swarm.inference import InferenceSession, open_session
from swarm.inputs import Inputs
from swarm.network import Network
from swarm.session import Ticket
from swarm.streams import FrameStream
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.messages import Hello, Message
from tests.end_to_end.exact import check_answer, prompt, small_model
from tests.end_to_end.swarm import Offer, Swarm, open_swarm, until

OFFERS = [Offer(0, 3), Offer(3, 6, blocks_per_s=1e5), Offer(3, 6, blocks_per_s=100.0)]


class DiskFull(Exception):
    """Nothing can be written down any more."""


class Diary:
    """What is written down and what leaves, in order, as ("saved" or "sent", epoch)."""

    def __init__(self, num_pages: int = 1000) -> None:
        self.entries: list[tuple[str, int]] = []
        self.tickets: list[Ticket] = []
        self._num_pages = num_pages
        self.write_s = 0.0

    async def save(self, ticket: bytes) -> None:
        """Note a ticket. Raises DiskFull after the last page."""
        read = msgspec.msgpack.decode(ticket, type=Ticket)
        await asyncio.sleep(self.write_s)
        if len(self.tickets) == self._num_pages:
            raise DiskFull
        self.tickets.append(read)
        self.entries.append(("saved", read.epoch))

    def note_sent(self, message: Message) -> None:
        """Note under which epoch a message leaves, if it belongs to any."""
        epoch: int | None = getattr(message, "epoch", None)
        if epoch is not None:
            self.entries.append(("sent", epoch))

    def epochs(self, kind: str) -> list[int]:
        """The epochs of all entries of a kind, each once, in order."""
        return list(dict.fromkeys(epoch for what, epoch in self.entries if what == kind))

    def check(self) -> None:
        """Nothing left under an epoch above all that were saved before."""
        written = 0
        for what, epoch in self.entries:
            assert what == "saved" or epoch <= written
            written = max(written, epoch if what == "saved" else 0)


class WatchedConnection:
    """A connection on which a diary is kept."""

    def __init__(self, connection: Connection, diary: Diary) -> None:
        self._connection = connection
        self._diary = diary

    def send(self, session_id: SessionId, listener: Listener, message: Message) -> None:
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
        opened, re_routed, attached = network.diary.epochs("sent")[:3]
        assert (opened, re_routed) == (1, 2)
        assert attached > AHEAD, "above all that the first one might have used"
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
    async with a_swarm() as (_, network):
        for num_pages in (0, 1):
            network.diary = Diary(num_pages)
            with pytest.RaisesGroup(DiskFull, allow_unwrapped=True, flatten_subgroups=True):
                await use_up_what_is_written_down(network)
            assert max(network.diary.epochs("sent"), default=0) == num_pages * AHEAD
            network.diary.check()


async def use_up_what_is_written_down(network: WatchedNetwork) -> None:
    """Open a session, and bind it until that comes to nothing, as it must."""
    async with open_watched(network) as session:
        await session.feed(prompt(2))
        for _ in range(AHEAD):
            session.driver.bind(session.route)
        await session.feed(prompt(3))
    pytest.fail("the session went on under an epoch that was not written down")


async def test_a_session_that_has_used_up_its_epochs_goes_on_once_more_are_written_down() -> None:
    async with a_swarm() as (swarm, network):
        async with open_watched(network) as session:
            await session.feed(prompt(2))
            for _ in range(2 * AHEAD):
                session.driver.bind(session.route)
            await check_answer(swarm.model, session, prompt(2, 9), 4)
        assert max(network.diary.epochs("sent")) > AHEAD
        network.diary.check()


async def test_a_lost_server_is_replaced_before_a_slow_disk_has_written_that_down() -> None:
    async with a_swarm() as (swarm, network), open_watched(network) as session:
        await session.feed(prompt(1))
        network.diary.write_s = 3600.0
        swarm.path(session)[1].kill()
        await check_answer(swarm.model, session, prompt(1, 9), 4)
        assert network.diary.epochs("sent")[:2] == [1, 2]
        network.diary.check()


async def test_a_ticket_names_the_route_soon_after_it_was_bound() -> None:
    async with a_swarm() as (swarm, network), open_watched(network) as session:
        await session.feed(prompt(1))
        swarm.path(session)[1].kill()
        await session.feed(prompt(2))
        await until(lambda: network.diary.tickets[-1].route == session.route, 10.0, "the ticket is renewed")
