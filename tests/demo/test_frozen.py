"""A server that a session has lost: is it frozen, dead, or well again?"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from demo.frozen import ANSWER_S, SILENCE_S, end_if_frozen
from demo.private_swarm import Service
from swarm.errors import PeerUnreachable
from swarm.wire.blocks import PeerId, Span

NAMES = ("silent", "unreachable", "dead", "well again", "well again at last")


class FakeConnections:
    """Connections whose other ends behave as their names say."""

    async def reach(self, peer_id: PeerId, addresses: Sequence[str]) -> Any:
        if peer_id == "unreachable":
            raise PeerUnreachable("nobody is there", peer_id)
        connection = SimpleNamespace(rtt_s=0.001 if peer_id == "well again" else None)
        if peer_id == "well again at last":
            asyncio.get_running_loop().call_later(ANSWER_S / 2, setattr, connection, "rtt_s", 0.001)
        return connection


async def test_only_a_server_that_runs_and_does_not_answer_is_ended() -> None:
    servers = [Service(name, Span(0, 1), Path(), Path(), peer_id=PeerId(name)) for name in NAMES]
    ended: list[Service] = []
    swarm = cast("Any", SimpleNamespace(end_frozen=ended.append))
    async with asyncio.timeout(SILENCE_S + ANSWER_S + 1.0), asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(end_if_frozen(swarm, cast("Any", FakeConnections()), server))
        await asyncio.sleep(SILENCE_S / 2)
        servers[NAMES.index("dead")].has_ended = True
    assert {server.name for server in ended} == {"silent", "unreachable"}
