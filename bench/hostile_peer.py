"""A peer that breaks the rules as often as it is told to: `python -m bench.hostile_peer ADDRESS MODEL RATE`.

Every line of standard input starts the attack or ends it, in turn; after each it prints one JSON line: how
many messages it has sent so far. RATE is messages a second over all kinds; 0 is as fast as it can. Three
kinds:

    malformed   a frame that no rule allows, on a stream of its own, which the server ends
    refused     well-formed frames on one control stream: pings, and orders for sessions that do not exist
    out of turn steps into a session of its own that continue nothing
"""

import asyncio
import itertools
import json
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import torch

from swarm.background import running_group
from swarm.errors import PeerUnreachable
from swarm.loop import run
from swarm.streams import FrameStream
from swarm.transport import Transport, native_id, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN, FROM_SERVER, MAX_CHAIN_FRAME_BYTES, MAX_CONTROL_FRAME_BYTES
from swarm.wire.messages import (
    Bind,
    Close,
    CopyPages,
    Detach,
    Hello,
    Message,
    NextHop,
    Ping,
    StartReplay,
    Step,
    WantCredit,
)
from swarm.wire.protocols import CHAIN, CONTROL

WORKERS = 8
HIDDEN = 256
NUM_BLOCKS = 8
JUNK = (
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\x00\x00\x00\x09\x01\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    b"\x00\x00\x00\x09\x07\x00\x00\x00\x04\x80\x80\x80\x80",
    b"\x00\x00\x01\x00" + b"\x01\x00\x00\x00\xfb" + b"\x91" * 251,
)


class HostilePeer:
    """One attack on one server. `num_sent` counts messages."""

    def __init__(self, transport: Transport, target: PeerId, fingerprint: str) -> None:
        self.num_sent = 0
        self._transport = transport
        self._target = target
        self._fingerprint = fingerprint
        self._is_on = asyncio.Event()
        self._due_s = 0.0

    def switch(self) -> None:
        """Begin, or pause."""
        if self._is_on.is_set():
            self._is_on.clear()
        else:
            self._due_s = time.monotonic()
            self._is_on.set()

    async def attack_forever(self, rate: float) -> None:
        """All kinds side by side."""
        kinds = [*itertools.repeat(self._send_junk, WORKERS), self._send_orders, self._send_steps]
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(self._again(kind, rate))

    async def _again(self, kind: Callable[[float], Awaitable[None]], rate: float) -> None:
        while True:
            try:
                await kind(rate)
            except (PeerUnreachable, OSError, EOFError):  # cut off: come again
                await asyncio.sleep(0.05)

    async def _turn(self, rate: float) -> None:
        """Wait until another message may be sent, by whatever kind comes first."""
        await self._is_on.wait()
        if rate:
            self._due_s = max(self._due_s, time.monotonic() - 0.1) + 1 / rate
            await asyncio.sleep(self._due_s - time.monotonic())
        else:
            await asyncio.sleep(0)
        self.num_sent += 1

    async def _send_junk(self, rate: float) -> None:
        for number in itertools.count():
            await self._turn(rate)
            protocol = (CONTROL, CHAIN)[number % 2]
            _, reader, writer = await self._transport.p2p.call_binary_stream_handler(
                native_id(self._target), protocol
            )
            writer.write(JUNK[number % len(JUNK)])
            while await reader.read(65_536):
                pass
            writer.close()

    async def _send_orders(self, rate: float) -> None:
        stream = await self._control()
        async with running_group() as group:
            group.create_task(_read_all(stream))
            for message in itertools.cycle(self._orders()):
                await self._turn(rate)
                await stream.write(message)

    async def _send_steps(self, rate: float) -> None:
        control, session = await self._control(), secrets.token_bytes(16)
        await control.write(self._bind(session, self._fingerprint))
        chain = await self._transport.open_stream(
            self._target, CHAIN, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN
        )
        await chain.write(Hello(client=self._transport.peer_id, session=session, epoch=1, stage=0))
        async with running_group() as group:
            for stream in (control, chain):
                group.create_task(_read_all(stream))
            for step in _steps():
                await self._turn(rate)
                await chain.write(step, (torch.zeros(1, HIDDEN),))

    async def _control(self) -> FrameStream:
        return await self._transport.open_stream(
            self._target, CONTROL, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_SERVER
        )

    def _bind(self, session: bytes, fingerprint: str) -> Bind:
        return Bind(
            session=session,
            epoch=1,
            stage=0,
            num_stages=1,
            start=0,
            end=NUM_BLOCKS,
            fingerprint=fingerprint,
            previous=self._transport.peer_id,
            next=None,
            commit=0,
            lease_ms=0,
        )

    def _orders(self) -> list[Message]:
        nobody = secrets.token_bytes(16)
        to = NextHop(self._transport.peer_id)
        return [
            Ping(nonce=2**40),
            WantCredit(session=nobody, epoch=1, position=9, wait_ms=1),
            StartReplay(session=nobody, epoch=1, start=0, start_tag=0, end=5, end_tag=1, stop_stage=0),
            CopyPages(session=nobody, epoch=1, position=5, tag=1, start=0, end=NUM_BLOCKS, stage=0, to=to),
            self._bind(nobody, "f" * 32),
            Close(session=nobody),
            Detach(session=nobody),
        ]


async def _read_all(stream: FrameStream) -> None:
    while True:
        await stream.read()


def _steps() -> Iterator[Step]:
    for attempt in itertools.count():
        yield Step(
            epoch=1,
            seq=attempt,
            attempt=attempt,
            position=99,
            num_tokens=1,
            base_tag=7,
            tag=8,
            commit=0,
            rows=1,
        )


async def _main(address: str, fingerprint: str, rate: float) -> None:
    torch.set_num_threads(1)
    target = PeerId(address.rpartition("/p2p/")[2])
    async with open_transport(client_only=True) as transport, running_group() as group:
        await transport.connect(target, [address])
        peer = HostilePeer(transport, target, fingerprint)
        group.create_task(peer.attack_forever(rate))
        while await asyncio.to_thread(sys.stdin.readline):
            peer.switch()
            sys.stdout.write(f"{json.dumps(peer.num_sent)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
