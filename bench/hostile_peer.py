"""A peer that floods a server: `python -m bench.hostile_peer ADDRESS MODEL FLOOD`; see hostile_floods.py.

It says that it has joined with a line on standard output. The flood begins with the first line of standard
input; to each line it answers with one of its own: how many messages it has sent so far.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch

from bench.hostile_floods import FLOODS, Flood
from bench.stranger import Stranger
from swarm.background import running
from swarm.dht import open_dht
from swarm.errors import SwarmError
from swarm.loop import run
from swarm.transport import open_transport
from swarm.wire.blocks import PeerId

AGAIN_S = 0.05
LEAST_URGENT = 19
"""The peer computes on the machine that it floods: only what nobody else needs is to be its own."""


async def _again(flood: Flood, stranger: Stranger) -> None:
    """Whoever is cut off comes again."""
    while True:
        try:
            await flood(stranger)
        except* (SwarmError, OSError, EOFError):
            pass
        await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def _stranger(address: str, fingerprint: str) -> AsyncIterator[Stranger]:
    target = PeerId(address.rpartition("/p2p/")[2])
    async with open_transport(client_only=True) as transport:
        await transport.connect(target, [address])
        async with open_dht(transport, [address], is_client=True) as dht:
            yield Stranger(transport, dht, target, fingerprint)


async def _main(address: str, fingerprint: str, name: str) -> None:
    torch.set_num_threads(1)
    os.nice(LEAST_URGENT)
    number, flood = FLOODS[name]
    async with _stranger(address, fingerprint) as stranger:
        _say("joined")
        if not await asyncio.to_thread(sys.stdin.readline):
            return
        async with running(_answer(stranger), *(_again(flood, stranger) for _ in range(number))):
            await asyncio.Event().wait()


async def _answer(stranger: Stranger) -> None:
    while True:
        _say(str(stranger.num_sent))
        await asyncio.to_thread(sys.stdin.readline)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run(_main(*sys.argv[1:4]))
