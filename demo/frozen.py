"""Tells a frozen server, which neither answers nor ends, from one that is dead or well again."""

import asyncio

from demo.private_swarm import PrivateSwarm, Service
from swarm.connections import Connections
from swarm.errors import PeerUnreachable

SILENCE_S = 2.0
"""A connection that has fallen silent is known to be lost by then, and a dead server to be gone."""
ANSWER_S = 1.5
TICK_S = 0.05


async def end_if_frozen(swarm: PrivateSwarm, connections: Connections, server: Service) -> None:
    """A session has lost `server`: end it if it still runs and does not answer, so that it is replaced."""
    await asyncio.sleep(SILENCE_S)
    if not server.has_ended and not await _answers(connections, server):
        swarm.end_frozen(server)


async def _answers(connections: Connections, server: Service) -> bool:
    assert server.peer_id is not None
    try:
        async with asyncio.timeout(ANSWER_S):
            connection = await connections.reach(server.peer_id, server.addresses)
            while connection.rtt_s is None:  # noqa: ASYNC110 - p2pd lets us in; whether it answers shows here
                await asyncio.sleep(TICK_S)
    except (TimeoutError, PeerUnreachable):
        return False
    return True
