"""Closing sessions that nobody holds: their owner wants what they know to be gone before the lease ends."""

import asyncio
import logging

from swarm.errors import PeerUnreachable
from swarm.network import Network
from swarm.session import read_ticket
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.messages import Close, SessionProgress

logger = logging.getLogger(__name__)


class _Nobody:
    """Listens for a session that is closed: whatever is still said of it is of no use."""

    def on_message(self, peer_id: PeerId, message: object) -> None:
        """See swarm.connections.Listener, as for all that follow."""

    def on_progress(self, peer_id: PeerId, progress: SessionProgress) -> None: ...

    def on_lost(self, peer_id: PeerId, reason: str) -> None: ...

    def on_draining(self, peer_id: PeerId) -> None: ...


async def close_kept(network: Network, ticket: bytes) -> None:
    """Have every server of a ticket's route free the session now.

    One that is out of reach frees it when the lease ends. Raises LocalProtocolError if this is no ticket.
    """
    held = read_ticket(ticket)
    addresses = network.addresses(held.route)
    async with asyncio.TaskGroup() as group:
        for peer_id in addresses:
            group.create_task(_close(network, SessionId(held.session), peer_id, addresses[peer_id]))


async def _close(network: Network, session: SessionId, peer_id: PeerId, addresses: tuple[str, ...]) -> None:
    try:
        if network.health.is_paused(peer_id):
            raise PeerUnreachable(f"{peer_id} did not answer a moment ago", peer_id)
        connection = await network.connections.reach(peer_id, addresses)
    except PeerUnreachable as error:
        network.health.failed(peer_id)
        logger.info("a session stays there until its lease ends: %s", error)
        return
    connection.send(session, _Nobody(), Close(session=session))
    connection.forget(session)
