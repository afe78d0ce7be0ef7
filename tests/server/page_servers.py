"""Servers without a model or a network that hand each other KV pages."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import torch

from server.executor import Executor
from server.host import Host, HostedModel
from server.kv_cache import KVPool
from server.kv_extents import Pair
from server.page_copy import MAX_PAGES_FRAME_BYTES, PageCopies
from server.session_effects import SessionKey
from swarm.background import running
from swarm.errors import PeerUnreachable
from swarm.streams import ByteBudget, FrameStream, StreamRules
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.frames import FROM_CHAIN, FrameDecoder
from swarm.wire.messages import Bind, CopyPages, Hello, Message, NextHop, Pages
from tests.server.test_executor import FakeRunner

CLIENT, SOURCE, TARGET = PeerId("CLient"), PeerId("Source"), PeerId("Target")
SESSION, FINGERPRINT = bytes(16), "f" * 64
SPAN = Span(2, 4)
LAYOUT = ((torch.empty(2, 1, 8), torch.empty(2, 1, 4)),) * len(SPAN)
COMMIT, TAG = 40, 7
EVERYTHING = StreamRules(64 << 20, FROM_CHAIN)


class Ears:
    """A control connection that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def send(self, message: Message) -> None:
        self.heard.append(message)


class FakeTransport:
    """Opens streams whose other end, that of the target, lies in `accepted`."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[FrameStream] = asyncio.Queue()

    async def open_stream(self, peer_id: PeerId, *_: Any, limit: int, decoder: FrameDecoder) -> FrameStream:
        ours, theirs = await stream_pair(StreamRules(limit, decoder), EVERYTHING)
        self.accepted.put_nowait(theirs)
        return ours


async def stream_pair(ours: StreamRules, theirs: StreamRules) -> tuple[FrameStream, FrameStream]:
    """Two ends of one stream: `ours` is told that it talks to TARGET, `theirs` to SOURCE."""
    ends = []
    for sock, rules, remote in zip(socket.socketpair(), (ours, theirs), (TARGET, SOURCE), strict=True):
        reader, writer = await asyncio.open_connection(sock=sock)
        ends.append(FrameStream(remote, reader, writer, rules, ByteBudget(128 << 20)))
    return ends[0], ends[1]


async def nobody(next_hop: NextHop, hello: Hello) -> FrameStream:
    raise PeerUnreachable("nobody is there", PeerId(next_hop.peer))


class Server:
    """A host without a model, the copies of its pages, and one client's ears."""

    def __init__(self, host: Host, runner: FakeRunner) -> None:
        self.host, self.runner, self.ears, self.transport = host, runner, Ears(), FakeTransport()
        self.copies = PageCopies(cast(Transport, self.transport), host)

    async def bind(self, commit: int = COMMIT, epoch: int = 0, session: bytes = SESSION) -> None:
        bind = Bind(
            session=session,
            epoch=epoch,
            stage=0,
            start=SPAN.start,
            end=SPAN.end,
            num_stages=1,
            fingerprint=FINGERPRINT,
            previous=CLIENT,
            next=None,
            commit=commit,
            positions=struct.pack("<I", commit),
            tags=struct.pack("<Q", TAG),
            copy_from=SOURCE,
        )
        self.host.bind(CLIENT, bind, self.ears)
        await asyncio.sleep(0)

    async def take(self, *frames: tuple[Message, Sequence[torch.Tensor]], session: bytes = SESSION) -> None:
        """Take what SOURCE sends: a greeting, then `frames`."""
        theirs, ours = await stream_pair(EVERYTHING, StreamRules(MAX_PAGES_FRAME_BYTES, FROM_CHAIN))
        await theirs.write(hello(session))
        for message, tensors in frames:
            theirs.write_nowait(message, tensors)
        try:
            async with asyncio.timeout(5):
                await self.copies.take(ours)
        finally:
            theirs.close()
            ours.close()

    async def open_with_pages(self, session: bytes = SESSION) -> list[torch.Tensor]:
        """A session that holds COMMIT tokens; returns its pages."""
        await self.bind(session=session)
        frames = all_pages()
        await self.take(*frames, session=session)
        return [half for _, halves in frames for half in halves]

    def holds(self, pages: Sequence[torch.Tensor]) -> bool:
        """Tell whether the session's cache is bit for bit that of `pages`."""
        cache = self.host.rooms.cache(SessionKey(CLIENT, SessionId(SESSION)))
        held = [half for pair in self.host.rooms.pool.export_pages(cache, COMMIT) for half in pair]
        return len(held) == len(pages) and all(map(torch.equal, held, pages))


@asynccontextmanager
async def serving(pages_per_block: int = 8, layout: tuple[Pair, ...] = LAYOUT) -> AsyncIterator[Server]:
    pool, runner = KVPool(pages_per_block * 16 * len(SPAN)), FakeRunner()
    async with Executor(runner, pool) as executor:
        host = Host(HostedModel(SPAN, FINGERPRINT, 4, torch.float32, layout), pool, executor, nobody, 1 << 20)
        async with running(host.run_forever()):
            await asyncio.sleep(0)
            yield Server(host, runner)


def hello(session: bytes = SESSION) -> Hello:
    return Hello(client=CLIENT, session=session, epoch=0, stage=0)


def page(block: int, offset: int, tokens: int, **other: Any) -> tuple[Pages, tuple[torch.Tensor, ...]]:
    """Part of a block's pages; `other` heads, dim, dtype make it unlike the model's."""
    heads, dim, dtype = other.get("heads", 2), other.get("dim", 8), other.get("dtype", torch.float32)
    keys, values = torch.randn(heads, tokens, dim), torch.randn(heads, tokens, 4)
    return Pages(block=block, offset=offset, last=False), (keys.to(dtype), values.to(dtype))


def all_pages() -> list[tuple[Pages, tuple[torch.Tensor, ...]]]:
    return [page(block, 0, COMMIT) for block in (2, 3)]


def order(start: int = SPAN.start, end: int = SPAN.end, **changes: Any) -> CopyPages:
    wishes: dict[str, Any] = {
        "session": SESSION,
        "position": COMMIT,
        "tag": TAG,
        "epoch": 0,
        "stage": 0,
    } | changes
    return CopyPages(start=start, end=end, to=NextHop(TARGET), **wishes)
