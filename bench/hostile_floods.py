"""Floods: what a peer sends that breaks the rules, or keeps them and never stops. Each is one kind, for ever.

malformed        frames that no rule allows, on streams of their own, which the server ends
bad steps        steps with other tensors than they say, each on a stream of its own
out of turn      steps into a session of its own that continue nothing
orders           pings, and orders for sessions that do not exist, on one control stream
sessions         sessions opened and closed
streams          streams opened and closed without a word
held             as many streams as it may have, on which nothing comes; ended ones are opened again
halves           the same, with half a message on each
records          records into the server's table of the DHT: forged, old, and its own over and over
steps            steps as they should be, in as many sessions as it may feed, without waiting for results
prompts          the same with prompts, over and over in a few sessions
polite ...       no floods: each of those sessions goes on once its last step is answered
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import torch

from bench.stranger import HIDDEN, NUM_BLOCKS, Stranger, thrown_away
from swarm.background import running_group
from swarm.dht_storage import servers_key
from swarm.incoming import MAX_STREAMS_PER_PEER
from swarm.transport import native_id
from swarm.wire.messages import (
    Close,
    CopyPages,
    Detach,
    Message,
    NextHop,
    Ping,
    StartReplay,
    Step,
    StepResult,
    WantCredit,
)
from swarm.wire.protocols import CHAIN, CONTROL
from swarm.wire.records import ServerRecord, seal_record
from swarm.wire.tags import TagChain

WORKERS = 8
NUM_SESSIONS = 120
"""Each has a stream in and one out, and a peer may have 256 streams."""
SESSION_TOKENS = 128
PROMPT_SESSIONS, PROMPT_TOKENS = 8, 256
JUNK = (
    b"\xff\xff\xff\xff",
    bytes(4),
    b"\x00\x00\x00\x09\x01\x00\x00\x00\x04\xc1\xc1\xc1\xc1",
    b"\x00\x00\x00\x09\x07\x00\x00\x00\x04\x80\x80\x80\x80",
    b"\x00\x00\x01\x00" + b"\x01\x00\x00\x00\xfb" + b"\x91" * 251,
)
HALF = b"\x00\x00\xea\x60\x01\x00\x00\xc3\x50" + bytes(20_000)


Flood = Callable[[Stranger], Coroutine[Any, Any, None]]
Steps = Iterator[tuple[Step, tuple[torch.Tensor, ...]]]
Feed = Callable[[Stranger, bytes, Steps], Coroutine[Any, Any, None]]


# --- streams --------------------------------------------------------------------------------------


async def malformed(stranger: Stranger) -> None:
    for number in itertools.count():
        reader, writer = await stranger.raw((CONTROL, CHAIN)[number % 2])
        writer.write(JUNK[number % len(JUNK)])
        await stranger.sent()
        await thrown_away(reader)
        writer.close()


async def streams(stranger: Stranger) -> None:
    while True:
        for protocol in (CONTROL, CHAIN):
            (await stranger.raw(protocol))[1].close()
            await stranger.sent()


async def held(stranger: Stranger, first: bytes = b"") -> None:
    """One of the streams: on CHAIN something must come within 10 s, on CONTROL within 30 s."""
    for number in itertools.count():
        reader, writer = await stranger.raw((CONTROL, CHAIN)[number % 2])
        try:
            writer.write(first)
            await stranger.sent()
            await thrown_away(reader)
        finally:
            writer.close()


async def halves(stranger: Stranger) -> None:
    await held(stranger, HALF)


# --- orders ---------------------------------------------------------------------------------------


async def orders(stranger: Stranger) -> None:
    async with stranger.control() as stream:
        for message in itertools.cycle(_refused_orders(stranger)):
            await stream.write(message)
            await stranger.sent()


def _refused_orders(stranger: Stranger) -> list[Message]:
    nobody = secrets.token_bytes(16)
    to = NextHop(stranger.transport.peer_id)
    return [
        Ping(nonce=2**40),
        WantCredit(session=nobody, epoch=1, position=9, wait_ms=1),
        StartReplay(session=nobody, epoch=1, start=0, start_tag=0, end=5, end_tag=1, stop_stage=0),
        CopyPages(session=nobody, epoch=1, position=5, tag=1, start=0, end=NUM_BLOCKS, stage=0, to=to),
        stranger.bind(nobody, fingerprint="f" * 32),
        Close(session=nobody),
        Detach(session=nobody),
    ]


async def sessions(stranger: Stranger) -> None:
    async with stranger.control() as stream:
        while True:
            name = secrets.token_bytes(16)
            for message in (stranger.bind(name), Close(session=name)):
                await stream.write(message)
                await stranger.sent()


# --- steps ----------------------------------------------------------------------------------------


def _steps(length: int = SESSION_TOKENS, size: int = 1) -> Steps:
    """`size` tokens at a time, and back to the start after `length` of them."""
    tags, rows = TagChain(bytes(16)), torch.ones(size, HIDDEN) / 8
    tags.append(range(length))
    for seq in itertools.count():
        at = seq * size % length
        step = Step(
            epoch=1,
            seq=seq,
            attempt=seq,
            position=at,
            num_tokens=size,
            base_tag=tags.tag(at),
            tag=tags.tag(at + size),
            commit=0,
            rows=1,
        )
        yield step, (rows,)


def _prompts() -> Steps:
    return _steps(PROMPT_TOKENS, PROMPT_TOKENS)


async def out_of_turn(stranger: Stranger) -> None:
    name = secrets.token_bytes(16)
    async with stranger.control() as control:
        await control.write(stranger.bind(name))
        async with stranger.chain(name) as chain:
            for step, tensors in _steps():
                await chain.write(msgspec.structs.replace(step, position=199, base_tag=7), tensors)
                await stranger.sent()


async def bad_steps(stranger: Stranger) -> None:
    step, (row,) = next(_steps())
    async with stranger.control() as control:
        for number in itertools.count():
            name = secrets.token_bytes(16)
            await control.write(stranger.bind(name))
            async with stranger.chain(name) as chain:
                await chain.write(step, ((row, row), (row[:, 1:],), (row.to(torch.int64),))[number % 3])
                await stranger.sent()
                await thrown_away(chain._reader)
            await control.write(Close(session=name))


async def steps(stranger: Stranger) -> None:
    await _in_sessions(stranger, NUM_SESSIONS, _feed, _steps)


async def polite_steps(stranger: Stranger) -> None:
    await _in_sessions(stranger, NUM_SESSIONS, _feed_politely, _steps)


async def prompts(stranger: Stranger) -> None:
    await _in_sessions(stranger, PROMPT_SESSIONS, _feed, _prompts)


async def polite_prompts(stranger: Stranger) -> None:
    await _in_sessions(stranger, PROMPT_SESSIONS, _feed_politely, _prompts)


async def _in_sessions(stranger: Stranger, number: int, feed: Feed, make: Callable[[], Steps]) -> None:
    async with stranger.control() as control, asyncio.TaskGroup() as group:
        for _ in range(number):
            name = secrets.token_bytes(16)
            await control.write(stranger.bind(name))
            group.create_task(feed(stranger, name, make()))


async def _feed(stranger: Stranger, name: bytes, steps: Steps) -> None:
    async with (
        stranger.chain(name, direction="output") as results,
        stranger.chain(name) as chain,
        running_group() as group,
    ):
        group.create_task(thrown_away(results._reader))
        for step, tensors in steps:
            await chain.write(step, tensors)
            await stranger.sent()


async def _feed_politely(stranger: Stranger, name: bytes, steps: Steps) -> None:
    async with stranger.chain(name, direction="output") as results, stranger.chain(name) as chain:
        for step, tensors in steps:
            await chain.write(step, tensors)
            await stranger.sent()
            while not isinstance((await results.read()).message, StepResult):
                pass


# --- records --------------------------------------------------------------------------------------


async def records(stranger: Stranger) -> None:
    node = stranger.dht._node
    key = type(node.node_id).generate(servers_key(stranger.fingerprint))
    for number in itertools.count():
        record = _record(stranger, is_old=number % 3 == 0)
        raw = bytearray(seal_record(record, stranger.transport.identity.sign))
        raw[-1] ^= number % 3 == 1
        value = msgspec.msgpack.encode(bytes(raw))
        await node.protocol.call_store(
            native_id(stranger.target), [key], [value], record.expires_at, [record.peer]
        )
        await stranger.sent()


def _record(stranger: Stranger, *, is_old: bool) -> ServerRecord:
    """What a server would say that serves nobody."""
    now = time.time()
    return ServerRecord(
        peer=stranger.transport.peer_id,
        sequence=1 if is_old else int(1000 * now),
        issued_at=now,
        expires_at=now + 30,
        fingerprint=stranger.fingerprint,
        start=0,
        end=NUM_BLOCKS,
        state="offline",
        throughput=1.0,
        inference_rps=1.0,
    )


FLOODS: dict[str, tuple[int, Flood]] = {
    "malformed": (WORKERS, malformed),
    "bad steps": (1, bad_steps),
    "out of turn": (1, out_of_turn),
    "orders": (1, orders),
    "sessions": (1, sessions),
    "streams": (WORKERS, streams),
    "held": (MAX_STREAMS_PER_PEER, held),
    "halves": (MAX_STREAMS_PER_PEER, halves),
    "records": (1, records),
    "steps": (1, steps),
    "prompts": (1, prompts),
    "polite steps": (1, polite_steps),
    "polite prompts": (1, polite_prompts),
}
"""By name: how many of it there are at once, and what each does."""
