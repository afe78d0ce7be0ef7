"""KV pages on their way to a successor: copied bit by bit, never recomputed, so that nothing changes.

A server that is about to stop sends a session's pages to the server that takes its place; the client has
told that one whom to expect. If anything fails, the client replays, as it does for a server that died.
"""

import asyncio
import logging
from collections.abc import Iterator

import torch

from server.host import Host
from server.kv_extents import Pair
from server.session_effects import SessionKey
from server.session_table import Refused
from swarm.errors import PeerUnreachable
from swarm.streams import EndOfStream, FrameStream
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.frames import FROM_CHAIN, MAX_CONTROL_FRAME_BYTES, BadFrame
from swarm.wire.messages import CopyPages, Hello, Pages
from swarm.wire.protocols import PAGES

logger = logging.getLogger(__name__)

COPY_S = 30.0
CHUNK_BYTES = 4 << 20


async def send_pages(transport: Transport, host: Host, client: PeerId, order: CopyPages) -> None:
    """Obey CopyPages. Raises Refused if the session does not hold what is asked for, or nobody takes it."""
    key = SessionKey(client, SessionId(order.session), order.slot)
    pairs = await host.export(key, Span(order.start, order.end), order.position, order.tag)
    hello = Hello(client=client, session=order.session, epoch=order.epoch, stage=order.stage)
    try:
        async with asyncio.timeout(COPY_S):
            stream = await transport.open_stream(
                PeerId(order.to.peer),
                PAGES,
                order.to.addresses,
                limit=MAX_CONTROL_FRAME_BYTES,
                decoder=FROM_CHAIN,
            )
            await _write_all(stream, hello, order.start, pairs)
    except (PeerUnreachable, TimeoutError) as error:
        raise Refused("internal", f"the pages could not be copied: {error or 'too slow'}") from error


async def _write_all(stream: FrameStream, hello: Hello, first_block: int, pairs: list[Pair]) -> None:
    """Send everything, then wait for the other end to hang up: it has what it needs. Raises Refused."""
    await stream.write(hello)
    for block, (keys, values) in enumerate(pairs, first_block):
        for offset, size in _chunks(keys, values):
            is_last = block == first_block + len(pairs) - 1 and offset + size == keys.shape[1]
            part = (keys[:, offset : offset + size], values[:, offset : offset + size])
            await stream.write(Pages(block=block, offset=offset, last=is_last), part)
    try:
        answer = (await stream.read()).message
    except EndOfStream:
        return
    finally:
        stream.close()
    raise Refused("internal", f"the successor did not take the pages: {getattr(answer, 'message', '')}")


def _chunks(keys: torch.Tensor, values: torch.Tensor) -> Iterator[tuple[int, int]]:
    """(offset, tokens) of parts that fit a frame."""
    tokens = keys.shape[1]
    per_token = (keys.nbytes + values.nbytes) // max(1, tokens)
    step = max(1, CHUNK_BYTES // max(1, per_token))
    return ((offset, min(step, tokens - offset)) for offset in range(0, tokens, step))


async def take_pages(host: Host, stream: FrameStream) -> None:
    """Receive a session's pages from the server that the client named. Raises Refused or BadFrame."""
    async with asyncio.timeout(COPY_S):
        hello = (await stream.read()).message
        if not isinstance(hello, Hello):
            raise BadFrame("a stream of pages begins with Hello")
        driver = await host.admit(stream.remote_id, hello, is_copy=True)
        pairs = await _read_all(stream, driver.session.span, driver.session.commit)
    await host.adopt(driver, hello.epoch, pairs)


async def _read_all(stream: FrameStream, span: Span, num_tokens: int) -> list[Pair]:
    """All blocks of `span`, in order, each complete. Raises BadFrame otherwise."""
    pairs: list[Pair] = []
    for block in range(span.start, span.end):
        parts: list[Pair] = []
        held = 0
        while held < num_tokens:
            frame = await stream.read()
            message = frame.message
            if not isinstance(message, Pages) or (message.block, message.offset) != (block, held):
                raise BadFrame("pages come block by block, without gaps")
            held += _check_part(frame.tensors, num_tokens - held)
            parts.append((frame.tensors[0], frame.tensors[1]))
        pairs.append((torch.cat([k for k, _ in parts], 1), torch.cat([v for _, v in parts], 1)))
    return pairs


def _check_part(tensors: tuple[torch.Tensor, ...], most_tokens: int) -> int:
    """Number of tokens in a part. Raises BadFrame if it is none that could be cached."""
    if len(tensors) != 2 or any(tensor.dim() != 3 for tensor in tensors):
        raise BadFrame("a part has keys and values, [heads, tokens, dim] each")
    keys, values = tensors
    if keys.shape[:2] != values.shape[:2] or keys.dtype != values.dtype:
        raise BadFrame("keys and values of a part do not belong together")
    if not 0 < keys.shape[1] <= most_tokens:
        raise BadFrame("a part has too many tokens, or none")
    return int(keys.shape[1])
