"""Frames on a stream: bounded reads from hostile peers, bounded writes to slow ones."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import torch

from swarm.errors import PeerUnreachable
from swarm.incoming import MAX_REFUSALS, MAX_STREAMS, MAX_STREAMS_PER_PEER, IncomingStreams
from swarm.streams import ByteBudget, EndOfStream, FrameStream, StreamRules
from swarm.wire.blocks import PeerId
from swarm.wire.frames import FROM_CHAIN, BadFrame, encode_frame
from swarm.wire.messages import Hello, Pages

LIMIT = 1 << 20
PAGES = Pages(block=1, offset=2, last=True)


@asynccontextmanager
async def joined(
    *,
    budget: ByteBudget | None = None,
    first_frame_s: float | None = None,
    half_frame_s: float = 5.0,
) -> AsyncIterator[tuple[FrameStream, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A FrameStream and the raw other end of its socket."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    their_reader, their_writer = await asyncio.open_connection(sock=theirs)
    budget = budget or ByteBudget(LIMIT)
    rules = StreamRules(LIMIT, FROM_CHAIN, first_frame_s, half_frame_s)
    stream = FrameStream(PeerId("1peer"), reader, writer, rules, budget)
    try:
        yield stream, their_reader, their_writer
    finally:
        writer.transport.abort()
        their_writer.transport.abort()


def raw_frame(*tensors: torch.Tensor) -> bytes:
    return b"".join(encode_frame(PAGES, tensors))


async def test_a_frame_that_comes_byte_by_byte_is_read_and_its_tensor_can_be_written() -> None:
    sent = torch.arange(5, dtype=torch.bfloat16)
    async with joined() as (stream, _, writer):
        raw = raw_frame(sent)
        reading = asyncio.create_task(stream.read())
        for byte in raw:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        frame = await reading
        assert torch.equal(frame.tensors[0], sent)
        frame.tensors[0].add_(1)
        assert (stream.frames_in, stream.bytes_in) == (1, len(raw))


async def test_a_frame_above_the_limit_is_refused_before_its_body_comes() -> None:
    async with joined() as (stream, _, writer):
        writer.write((LIMIT + 1).to_bytes(4, "big"))
        with pytest.raises(BadFrame, match="limit"):
            await stream.read()


async def test_a_promised_body_is_not_allocated_before_it_comes() -> None:
    async with joined(half_frame_s=0.05) as (stream, _, writer):
        writer.write(LIMIT.to_bytes(4, "big") + b"xy")
        with pytest.raises(PeerUnreachable, match="silent"):
            await stream.read()


async def test_a_peer_may_be_silent_between_frames_for_longer_than_within_one() -> None:
    async with joined(half_frame_s=0.02) as (stream, _, writer):
        reading = asyncio.create_task(stream.read())
        await asyncio.sleep(0.06)
        writer.write(raw_frame())
        assert (await reading).message == PAGES


async def test_a_stream_that_never_says_anything_is_given_up_and_later_silence_is_not() -> None:
    async with joined(first_frame_s=0.02) as (stream, _, writer):
        with pytest.raises(PeerUnreachable, match="silent"):
            await stream.read()
        writer.write(raw_frame() * 2)
        await stream.read()
        await asyncio.sleep(0.04)
        await stream.read()


def test_a_peer_has_a_limit_and_a_newcomer_still_gets_in_when_all_streams_are_taken() -> None:
    incoming = IncomingStreams()
    with ExitStack() as held:
        one = PeerId("1one")
        for number in range(MAX_STREAMS_PER_PEER + 3):
            assert held.enter_context(incoming.counted(one)) == (number < MAX_STREAMS_PER_PEER)
        for number in range(MAX_STREAMS):
            held.enter_context(incoming.counted(PeerId(f"1{number % 100}")))
        assert not held.enter_context(incoming.counted(PeerId("15")))
        assert held.enter_context(incoming.counted(PeerId("1newcomer")))
        assert incoming.num_refused > 4
    with incoming.counted(one) as is_admitted:
        assert is_admitted
        assert incoming.budget(one) is incoming.budget(one)
    assert not incoming._budgets
    assert not incoming._number


def test_a_peer_is_deaf_that_holds_all_it_may_and_is_refused_many_times_in_a_short_while() -> None:
    now_s, peer = 0.0, PeerId("1deaf")
    incoming = IncomingStreams(lambda: now_s)
    with ExitStack() as held:
        for _ in range(MAX_STREAMS_PER_PEER):
            held.enter_context(incoming.counted(peer))
        for _ in range(4 * MAX_REFUSALS):  # one that tries again now and then is not
            now_s += 0.1
            incoming.refuse(peer)
        assert not incoming.is_deaf(peer)
        for _ in range(MAX_REFUSALS + 1):
            incoming.refuse(peer)
        assert incoming.is_deaf(peer)
        incoming.pardon(peer)
        assert not incoming.is_deaf(peer)


def test_who_is_refused_for_what_others_hold_is_not_deaf() -> None:
    incoming, peer = IncomingStreams(), PeerId("1honest")
    for _ in range(2 * MAX_REFUSALS):
        incoming.refuse(peer)
    assert not incoming.is_deaf(peer)


@pytest.mark.parametrize("num_bytes", [0, 2, 4, 9])
async def test_an_end_is_an_end_wherever_it_comes(num_bytes: int) -> None:
    async with joined() as (stream, _, writer):
        writer.write(raw_frame()[:num_bytes])
        writer.close()
        with pytest.raises(EndOfStream):
            await stream.read()


async def test_bytes_of_unfinished_frames_are_bounded_over_all_streams_of_a_peer() -> None:
    budget = ByteBudget(1000)
    tensor = torch.zeros(200)
    async with joined(budget=budget) as (first, _, slow), joined(budget=budget) as (second, _, fast):
        raw = raw_frame(tensor)
        slow.write(raw[:100])
        fast.write(raw)
        reading_first = asyncio.create_task(first.read())
        await asyncio.sleep(0.02)
        reading_second = asyncio.create_task(second.read())
        await asyncio.sleep(0.02)
        assert not reading_second.done()  # the first frame's promise uses the budget up
        slow.write(raw[100:])
        await reading_first
        await reading_second


async def test_a_frame_larger_than_the_whole_budget_passes_alone() -> None:
    async with joined(budget=ByteBudget(10)) as (stream, _, writer):
        writer.write(raw_frame(torch.zeros(100)))
        assert len((await stream.read()).tensors) == 1


async def test_a_write_waits_for_a_peer_that_does_not_read() -> None:
    async with joined() as (stream, reader, _):
        num_written = 0

        async def write() -> None:
            nonlocal num_written
            while True:
                await stream.write(PAGES, (torch.zeros(16_384),))
                num_written += 1

        writing = asyncio.create_task(write())
        await asyncio.sleep(0.1)
        stuck_at = num_written
        await asyncio.sleep(0.05)
        assert num_written == stuck_at < 64
        assert not writing.done()
        await reader.readexactly(stuck_at * 65_536)
        await asyncio.sleep(0.05)
        assert num_written > stuck_at
        writing.cancel()


async def test_what_may_be_skipped_is_skipped_when_the_peer_is_slow_or_gone() -> None:
    async with joined() as (stream, _, _):
        big = Hello(client="1c", session=bytes(16), epoch=0, stage=0)
        assert stream.write_nowait(big)
        sent = 0
        while stream.write_nowait(big):
            sent += 1
            assert sent < 200_000
        stream.close()
        assert not stream.write_nowait(big)


async def test_a_tensor_may_be_overwritten_as_soon_as_write_returns() -> None:
    async with joined() as (stream, reader, _):
        tensor = torch.ones(4096)
        await stream.write(PAGES, (tensor,))
        tensor.zero_()
        raw = await reader.readexactly(stream.bytes_out)
        assert torch.frombuffer(bytearray(raw[-4 * 4096 :]), dtype=torch.float32).eq(1).all()


async def test_writing_to_a_stream_that_ended_raises() -> None:
    async with joined() as (stream, _, _):
        stream.close()
        stream.close()
        assert stream.is_closing
        with pytest.raises(EndOfStream):
            await stream.write(PAGES)
