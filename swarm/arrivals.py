"""Streams as p2pd hands them over, each on a connection to our socket that says first who opened it.

p2pd takes every stream that a peer opens. What we would refuse is therefore refused here, by looking at those
first bytes: a flood then costs us some microseconds a stream, where a task and a reader for each cost so much
that the computation waited for them, and it is looked at in batches, as each look takes the interpreter away
from the computation. Whoever goes on nevertheless is cut off: what p2pd spends on a stream, only that saves.
"""

import asyncio
import functools
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError
from hivemind.p2p import PeerID
from hivemind.proto.p2pd_pb2 import StreamInfo

from swarm.incoming import MAX_STREAMS, IncomingStreams
from swarm.wire.blocks import PeerId
from swarm.wire.bounds import ErrorCode
from swarm.wire.frames import encode_frame
from swarm.wire.messages import SessionError

logger = logging.getLogger(__name__)

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CutOff = Callable[[PeerId], Coroutine[Any, Any, None]]


def refusal(code: ErrorCode, message: str) -> SessionError:
    """What a stream is told that we end."""
    return SessionError(session=bytes(16), epoch=0, code=code, message=message[:500], retry_after_ms=1000)


TOO_MANY = refusal("busy", "too many open streams")
_TOO_MANY = b"".join(encode_frame(TOO_MANY))
PAUSE_S = 0.005
NO_FILES_S = 1.0
MAX_BATCH = 256
HEAD_BYTES = 1024


def listen(path: str) -> socket.socket:
    """A socket at `path`. Its backlog holds a burst of one peer's streams: others lose none of theirs.

    Raises OSError if the path cannot be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(MAX_STREAMS)
    except OSError:
        listener.close()
        raise
    return listener


async def take_streams(
    listener: socket.socket, incoming: IncomingStreams, connected: Connected, cut_off: CutOff
) -> None:
    """Give every stream to `connected`, for ever, except those of peers that hold too many.

    They are told so, and those who do not listen to it are cut off.
    """
    async with asyncio.TaskGroup() as group:
        while True:
            too_many: set[PeerId] = set()
            for arrived in await _batch(listener):
                if peer_id := _refused(arrived, incoming):
                    too_many.add(peer_id)
                else:
                    group.create_task(_hand_over(arrived, connected))
            for peer_id in filter(incoming.is_deaf, too_many):
                logger.info("cut off %s, which opens streams whatever it is told", peer_id)
                incoming.pardon(peer_id)
                group.create_task(cut_off(peer_id))
            if too_many:
                await asyncio.sleep(PAUSE_S)


async def _batch(listener: socket.socket) -> list[socket.socket]:
    """What has arrived, at least one."""
    while True:
        try:
            first, _ = await asyncio.get_running_loop().sock_accept(listener)
            return [first, *_waiting(listener)]
        except OSError as error:
            logger.warning("cannot take another stream: %s", error)
            await asyncio.sleep(NO_FILES_S)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    with suppress(OSError):  # that none is waiting, mostly; whatever else it is comes again
        for _ in range(MAX_BATCH):
            arrived, _ = listener.accept()
            arrived.setblocking(False)
            yield arrived


async def _hand_over(arrived: socket.socket, connected: Connected) -> None:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), connected)
    try:
        await loop.connect_accepted_socket(lambda: protocol, arrived)
    except OSError as error:
        arrived.close()
        logger.debug("a stream ended before it began: %s", error)


def _refused(arrived: socket.socket, incoming: IncomingStreams) -> PeerId | None:
    """The peer, if it holds too many: then it has been told and the stream is closed."""
    opener, num_bytes = _opener(arrived)
    if opener is None or not incoming.is_full(opener):
        return None
    with incoming.loop_budget(opener).charged(), arrived, suppress(OSError):
        incoming.refuse(opener)
        arrived.recv(num_bytes)
        arrived.send(_TOO_MANY)
    return opener


def _opener(arrived: socket.socket) -> tuple[PeerId | None, int]:
    """Who opened a stream and how many bytes say so; None if p2pd has not said it yet."""
    try:
        head = arrived.recv(HEAD_BYTES, socket.MSG_PEEK)
        start = 1 + (head[0] >> 7)
        size = head[0] & 0x7F | (head[1] << 7 if start == 2 else 0)
        info = StreamInfo.FromString(head[start : start + size])
        return _peer_id(info.peer), start + size
    except (OSError, IndexError, DecodeError, ValueError):
        return None, 0


@functools.lru_cache(maxsize=1024)
def _peer_id(raw: bytes) -> PeerId:
    return PeerId(PeerID(raw).to_base58())
