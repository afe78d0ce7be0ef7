"""KV pages on their way to a successor: copied bit by bit, never recomputed, so that nothing changes.

A server that is about to stop sends a session's pages to the server that takes its place; the client has
told that one whom to expect. If anything fails, the client replays, as it does for a server that died.
Client and sender may be one and hostile: what they can make us hold is bounded by pages that were reserved.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Set
from typing import TypeVar

import torch

from server.host import Host
from server.kv_extents import Pair
from server.overloaded import Overloaded
from server.session_effects import SessionKey
from server.session_table import Refused
from server.sessions import HopSession
from server.tensor_payloads import is_finite
from swarm.errors import PeerUnreachable
from swarm.streams import EndOfStream, FrameStream
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.frames import FROM_CHAIN, MAX_CONTROL_FRAME_BYTES, BadFrame
from swarm.wire.messages import CopyPages, Hello, Pages
from swarm.wire.protocols import PAGES

T = TypeVar("T")

COPY_S = 30.0
BUSY_RETRY_MS = 1000
CHUNK_BYTES = 4 << 20
MAX_PAGES_FRAME_BYTES = CHUNK_BYTES + (64 << 10)
"""One part of a block's pages, and its header."""
MAX_COPIES_OUT = 4
"""Copies that leave at once: each holds the KV cache of its session a second time."""


class PageCopies:
    """The copies under way on one server, out and in."""

    def __init__(self, transport: Transport, host: Host) -> None:
        self._transport = transport
        self._host = host
        self._leaving: set[tuple[SessionKey, int]] = set()
        self._arriving: set[SessionKey] = set()
        self._free = asyncio.Semaphore(MAX_COPIES_OUT)

    async def send(self, client: PeerId, order: CopyPages) -> None:
        """Obey CopyPages, when its turn comes.

        Raises Refused if the session does not hold what is asked for, nobody takes it, or a copy of these
        blocks is under way. Two copies of other blocks may be: two servers take the place of this one.
        """
        key = SessionKey(client, SessionId(order.session), order.slot)
        if not order.position or order.start >= order.end:
            raise Refused("gap", "there is nothing to copy")
        span = Span(order.start, order.end)
        if not self._host.model.span.contains(span):  # an order may name 65,536 blocks
            raise Refused("gap", "this server does not have these blocks")
        blocks = {(key, block) for block in range(order.start, order.end)}
        with _alone(self._leaving, blocks), _refusing():
            async with asyncio.timeout(COPY_S), self._free:
                pairs = await self._host.export(key, span, order.position, order.tag)
                await self._write_all(order, client, await _moved(self._host, pairs, torch.device("cpu")))

    async def _write_all(self, order: CopyPages, client: PeerId, pairs: list[Pair]) -> None:
        stream = await self._transport.open_stream(
            PeerId(order.to.peer),
            PAGES,
            order.to.addresses,
            limit=MAX_CONTROL_FRAME_BYTES,
            decoder=FROM_CHAIN,
        )
        hello = Hello(client=client, session=order.session, epoch=order.epoch, stage=order.stage)
        try:
            await stream.write(hello)
            await _write_pages(stream, order.start, pairs)
        finally:
            stream.close()

    async def take(self, stream: FrameStream) -> None:
        """Receive a session's pages from the server that the client named.

        Raises Refused or BadFrame, TimeoutError if they do not come in time.
        """
        hello = (await stream.read()).message
        if not isinstance(hello, Hello):
            raise BadFrame("a stream of pages begins with Hello")
        driver = await self._host.admit(stream.remote_id, hello, is_copy=True)
        stream.loop_budget.welcome(is_own=False)
        with _alone(self._arriving, {driver.session.key}):
            async with asyncio.timeout(COPY_S):
                await driver.wait_until_idle()
                pairs = await self._receive(stream, driver.session, hello.epoch)
            with _refusing():
                await self._host.adopt(driver, hello.epoch, pairs)

    async def _receive(self, stream: FrameStream, session: HopSession, epoch: int) -> list[Pair]:
        """All blocks of the session, each complete, on our device. Raises Refused or BadFrame."""
        num_tokens = session.commit
        _check_awaited(session, epoch, num_tokens)
        await self._reserve(session, num_tokens)
        first = session.span.start - self._host.model.span.start
        layout = self._host.model.kv_layout[first : first + len(session.span)]
        pairs: list[Pair] = []
        for block, like in enumerate(layout, session.span.start):
            _check_awaited(session, epoch, num_tokens)
            pair = await _read_block(stream, block, like, num_tokens)
            with _refusing():
                pairs += await _moved(self._host, [pair], like[0].device)
        _check_awaited(session, epoch, num_tokens)
        return pairs

    async def _reserve(self, session: HopSession, num_tokens: int) -> None:
        """Have room before the first page is read: the commit is the client's word. Raises Refused."""
        with _refusing():
            if not await self._host.rooms.wake(session.key) or session.room(num_tokens) < num_tokens:
                raise Refused("busy", "no KV room for these pages", BUSY_RETRY_MS)


@contextlib.contextmanager
def _alone(under_way: set[T], names: Set[T]) -> Iterator[None]:
    """Note `names` during the block. Raises Refused if one of them is noted already."""
    if under_way & names:
        raise Refused("busy", "a copy of these pages is under way", BUSY_RETRY_MS)
    under_way |= names
    try:
        yield
    finally:
        under_way -= names


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what can go wrong into Refused: one copy's end must not be that of the client's stream."""
    try:
        yield
    except Overloaded as error:
        raise Refused("busy", str(error)) from error
    except (PeerUnreachable, BadFrame) as error:
        raise Refused("internal", f"the pages could not be copied: {error}") from error
    except TimeoutError as error:
        raise Refused("internal", "the pages could not be copied: too slow") from error
    except OSError as error:
        raise Refused("internal", "the pages could not be read") from error
    except (ValueError, KeyError) as error:  # rolled back, spilled or closed since it was asked
        raise Refused("gap", "the session changed while its pages were copied") from error


def _check_awaited(session: HopSession, epoch: int, num_tokens: int) -> None:
    """Raises Refused if the session does not wait for pages of `num_tokens` tokens, or not any more."""
    if not num_tokens or session.commit != num_tokens or not session.can_adopt(epoch):
        raise Refused("gap", "this session does not wait for these pages now")


async def _moved(host: Host, pairs: list[Pair], device: torch.device) -> list[Pair]:
    """`pairs` on `device`; what has to be copied is copied by the compute thread."""
    if all(half.device == device for pair in pairs for half in pair):
        return pairs
    return await host.executor.call(lambda: [(keys.to(device), values.to(device)) for keys, values in pairs])


async def _write_pages(stream: FrameStream, first_block: int, pairs: list[Pair]) -> None:
    """Send everything, then wait for the other end to hang up: it has what it needs. Raises Refused."""
    for block, (keys, values) in enumerate(pairs, first_block):
        for offset, size in _chunks(keys, values):
            is_last = block == first_block + len(pairs) - 1 and offset + size == keys.shape[1]
            part = (keys[:, offset : offset + size], values[:, offset : offset + size])
            await stream.write(Pages(block=block, offset=offset, last=is_last), part)
    try:
        answer = (await stream.read()).message
    except EndOfStream:
        return
    raise Refused("internal", f"the successor did not take the pages: {getattr(answer, 'message', '')}")


def _chunks(keys: torch.Tensor, values: torch.Tensor) -> Iterator[tuple[int, int]]:
    """(offset, tokens) of parts that fit a frame."""
    tokens = keys.shape[1]
    per_token = (keys.nbytes + values.nbytes) // max(1, tokens)
    step = max(1, CHUNK_BYTES // max(1, per_token))
    return ((offset, min(step, tokens - offset)) for offset in range(0, tokens, step))


async def _read_block(stream: FrameStream, block: int, like: Pair, num_tokens: int) -> Pair:
    """The pages of one block, in the host's memory, complete. Raises BadFrame otherwise."""
    keys, values = (
        torch.empty((half.shape[0], num_tokens, half.shape[2]), dtype=half.dtype, device="cpu")
        for half in like
    )
    held = 0
    while held < num_tokens:
        frame = await stream.read()
        message = frame.message
        if not isinstance(message, Pages) or (message.block, message.offset) != (block, held):
            raise BadFrame("pages come block by block, without gaps")
        end = held + _check_part(frame.tensors, like, num_tokens - held)
        keys[:, held:end], values[:, held:end] = frame.tensors
        held = end
    return keys, values


def _check_part(tensors: tuple[torch.Tensor, ...], like: Pair, most_tokens: int) -> int:
    """Number of tokens in a part. Raises BadFrame if it is none that this block can cache."""
    if len(tensors) != 2 or any(tensor.dim() != 3 for tensor in tensors):
        raise BadFrame("a part has keys and values, [heads, tokens, dim] each")
    tokens = int(tensors[0].shape[1])
    for half, model in zip(tensors, like, strict=True):
        heads, _, dim = model.shape
        if half.dtype != model.dtype or tuple(half.shape) != (heads, tokens, dim):
            raise BadFrame("a part is not what this block keeps")
    if not 0 < tokens <= most_tokens:
        raise BadFrame("a part has too many tokens, or none")
    if not all(map(is_finite, tensors)):
        raise BadFrame("keys and values are numbers")
    return tokens
