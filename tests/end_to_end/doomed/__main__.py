"""`doomed MODEL NUMBER ADDRESS...`: holds so many sessions until it is killed, some with a step under way."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from swarm.background import running
from swarm.inference import InferenceSession
from swarm.loop import run
from tests.end_to_end.conversations import open_client
from tests.end_to_end.endings import LEASE_MS, opened

READY = "holding\n"


async def _hold(model: Path, number: int, initial_peers: list[str]) -> None:
    async with open_client(initial_peers, model) as client, AsyncExitStack() as stack:
        for place in range(number):
            session = await stack.enter_async_context(opened(client, place, lease_ms=LEASE_MS))
            if place % 2:
                await stack.enter_async_context(running(_talk_forever(session)))
        sys.stdout.write(READY)
        sys.stdout.flush()
        await asyncio.Event().wait()


async def _talk_forever(session: InferenceSession) -> None:
    while True:
        before = session.position
        await session.feed([5])
        session.rollback(before)


def main(arguments: list[str]) -> int:
    """Hold sessions. Never returns of its own accord."""
    model, number, *initial_peers = arguments
    run(_hold(Path(model), int(number), initial_peers))
    return 0
