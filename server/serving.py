"""The streams that peers open to a block server: control and chain. Trusts nothing that comes in.

What a stream brings is decoded and bounded by the transport; here it is matched with the peer that sent it
and handed to the host.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from server.driver import SessionDriver
from server.host import Host
from server.page_copy import MAX_PAGES_FRAME_BYTES, PageCopies
from server.session_table import Refused
from server.tensor_payloads import is_finite, is_hidden
from swarm.background import running
from swarm.errors import PeerUnreachable
from swarm.streams import FRAME_S, VAIN_STREAM_S, EndOfStream, FrameStream
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.frames import (
    FROM_CHAIN,
    FROM_CLIENT,
    MAX_CHAIN_FRAME_BYTES,
    MAX_CONTROL_FRAME_BYTES,
    BadFrame,
    Frame,
)
from swarm.wire.messages import (
    Bind,
    Close,
    CopyPages,
    Detach,
    Draining,
    Hello,
    Message,
    NextHop,
    Ping,
    RecordPush,
    SessionError,
    StartReplay,
    StateStep,
    Step,
    WantCredit,
)
from swarm.wire.protocols import CHAIN, CONTROL, PAGES

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
FIRST_FRAME_S = 10.0
MAX_SLOW = 64

CopyTo = Callable[[PeerId, CopyPages], Awaitable[None]]


class Connection:
    """One client's control stream."""

    def __init__(
        self, stream: FrameStream, host: Host, copy_pages: CopyTo, num_slow: asyncio.Semaphore | None = None
    ) -> None:
        """`num_slow` counts the slow orders of the client, on all of its connections."""
        self.client = stream.remote_id
        self._copy_pages = copy_pages
        self._stream = stream
        self._host = host
        self._slow: asyncio.Queue[WantCredit | CopyPages] = asyncio.Queue(MAX_SLOW)
        self._num_slow = num_slow or asyncio.Semaphore(MAX_SLOW)

    def send(self, message: Message) -> None:
        """Tell the client. One that does not read is cut off: its sessions wait for it, detached."""
        if not self._stream.write_nowait(message):
            self._stream.close()

    async def serve(self) -> None:
        """Obey until the stream ends; then the sessions' leases begin."""
        try:
            async with running(self._beat_forever(), self._serve_slow_forever()):
                while True:
                    message = (await self._stream.read()).message
                    if isinstance(message, WantCredit | CopyPages):
                        self._stream.loop_budget.charge(2 * FRAME_S)  # a task for each
                        await self._slow.put(message)
                    else:
                        with self._stream.loop_budget.charged(FRAME_S):
                            self._obey(message)
        except EndOfStream:
            logger.debug("%s hung up", self.client)
        finally:
            self._host.detach(self)

    async def _beat_forever(self) -> None:
        while True:
            self.send(self._host.heartbeat(self))
            await asyncio.sleep(HEARTBEAT_S)

    async def _serve_slow_forever(self) -> None:
        """Do what takes time beside everything else; each has a deadline, and their number is bounded."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._num_slow.acquire()
                group.create_task(self._serve_slow(await self._slow.get()))

    async def _serve_slow(self, message: WantCredit | CopyPages) -> None:
        try:
            if isinstance(message, CopyPages):
                await self._copy_pages(self.client, message)
            elif (answer := await self._host.grant(self.client, message)) is not None:
                self.send(answer)
        except Refused as refusal:
            self.send(_refusal(message, refusal))
        except Exception:  # a mistake of ours costs the client this order, not all of its sessions
            logger.exception("an order of a client failed")
            self.send(_refusal(message, Refused("internal", "internal error")))
        finally:
            self._num_slow.release()

    def _obey(self, message: Message) -> None:
        try:
            if isinstance(message, Bind):
                self._host.bind(self.client, message, self)
            elif isinstance(message, StartReplay):
                self._host.replay(self.client, message)
            elif isinstance(message, Close):
                self._host.close(self.client, SessionId(message.session))
            elif isinstance(message, Detach):
                self._host.detach(self, SessionId(message.session))
            elif isinstance(message, Ping):
                self.send(self._host.heartbeat(self, message.nonce))
            else:
                raise Refused("unsupported", f"this server does not speak {type(message).__name__} yet")
        except Refused as refusal:
            self.send(_refusal(message, refusal))


class Serving:
    """All streams of one block server."""

    def __init__(self, transport: Transport, host: Host) -> None:
        self._transport = transport
        self._host = host
        self._copies = PageCopies(transport, host)
        self._connections: set[Connection] = set()
        self._num_slow: WeakValueDictionary[PeerId, asyncio.Semaphore] = WeakValueDictionary()

    async def start(self) -> None:
        """Answer peers from now on."""
        await self._transport.serve(
            CONTROL, self._on_control, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_CLIENT
        )
        await self._transport.serve(CHAIN, self._on_chain, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN)
        await self._transport.serve(PAGES, self._on_pages, limit=MAX_PAGES_FRAME_BYTES, decoder=FROM_CHAIN)

    @property
    def num_clients(self) -> int:
        """Open control connections."""
        return len(self._connections)

    def push_record(self, record: bytes) -> None:
        """Tell connected clients what we announce, without the detour through the DHT."""
        for connection in self._connections:
            connection.send(RecordPush(record=record))

    def push_draining(self, within_ms: int) -> None:
        """Tell connected clients to go elsewhere."""
        for connection in self._connections:
            connection.send(Draining(within_ms=within_ms))

    async def _on_control(self, stream: FrameStream) -> None:
        num_slow = self._num_slow.setdefault(stream.remote_id, asyncio.Semaphore(MAX_SLOW))
        connection = Connection(stream, self._host, self._copies.send, num_slow)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    async def _on_pages(self, stream: FrameStream) -> None:
        try:
            await self._copies.take(stream)
        except Refused as refusal:
            logger.info("pages of %s were not taken: %s", stream.remote_id, refusal)
            stream.write_nowait(_refusal(Ping(nonce=0), refusal))
        except (TimeoutError, EndOfStream):
            logger.info("pages of %s did not come to their end", stream.remote_id)

    async def _on_chain(self, stream: FrameStream) -> None:
        try:
            async with asyncio.timeout(FIRST_FRAME_S):
                hello = (await stream.read()).message
            if not isinstance(hello, Hello):
                raise Refused("bad_message", "a chain stream begins with Hello")
            driver = await self._host.admit(stream.remote_id, hello)
        except Refused as refusal:
            stream.write_nowait(_refusal(hello, refusal))
            return
        except (TimeoutError, EndOfStream):
            return
        stream.loop_budget.welcome(is_own=stream.remote_id == hello.client)
        if hello.direction == "output":
            await _hand_out(stream, driver, hello.epoch)
        else:
            await self._take_in(stream, driver, hello.epoch)

    async def _take_in(self, stream: FrameStream, driver: SessionDriver, epoch: int) -> None:
        """Feed steps to the session for as long as the stream belongs to its epoch."""
        try:
            while True:
                await driver.has_room_for_more()
                frame = await stream.read()
                if driver.is_over(epoch):
                    if stream.remote_id == driver.session.key.client:
                        stream.loop_budget.charge(VAIN_STREAM_S)
                    else:  # whoever carries it cannot know
                        stream.loop_budget.forgive(stream.decoding_s)
                    return
                self._take_step(stream, driver, frame)
        except EndOfStream:
            return
        except BadFrame as error:
            stream.loop_budget.charge(VAIN_STREAM_S)  # it was welcome, and has come to nothing
            if driver.session.stage:  # the client knows what it does itself
                driver.complain(epoch, str(error))
            raise

    def _take_step(self, stream: FrameStream, driver: SessionDriver, frame: Frame) -> None:
        message = frame.message
        if not isinstance(message, Step | StateStep):
            raise BadFrame("only steps go down the chain")
        if not is_hidden(frame.tensors, message.num_tokens, self._host.model.hidden_size):
            raise BadFrame("a step carries the hidden states of its tokens, and nothing else")
        (hidden,) = frame.tensors
        if driver.session.stage and not is_finite(hidden):
            raise BadFrame("hidden states are numbers")
        began_s = time.thread_time()
        if driver.on_frame(message, hidden):
            stream.loop_budget.forgive(stream.decoding_s)
        else:
            stream.loop_budget.charge(time.thread_time() - began_s + FRAME_S)


async def _hand_out(stream: FrameStream, driver: SessionDriver, epoch: int) -> None:
    """Let the session's results leave through this stream until the client closes it."""
    if not driver.outgoing.attach(stream, epoch):
        return
    try:
        await stream.read()
    except PeerUnreachable:
        return


def _refusal(message: Message, refusal: Refused) -> SessionError:
    return SessionError(
        session=getattr(message, "session", bytes(16)),
        epoch=getattr(message, "epoch", 0),
        code=refusal.code,
        message=str(refusal)[:500],
        stage=getattr(message, "stage", 0),
        attempt=getattr(message, "attempt", 0),
        retry_after_ms=refusal.retry_after_ms,
    )


async def open_chain(transport: Transport, next_hop: NextHop, hello: Hello) -> FrameStream:
    """Open a chain stream to a successor and greet it. Raises PeerUnreachable."""
    stream = await transport.open_stream(
        PeerId(next_hop.peer), CHAIN, next_hop.addresses, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_CHAIN
    )
    await stream.write(hello)
    return stream
