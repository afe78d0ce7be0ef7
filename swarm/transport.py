"""Streams between peers: libp2p through hivemind's P2P. Only this file and arrivals.py import it.

What goes over the streams is streams.py's; what a peer says about itself in the DHT is dht.py's. Errors of
hivemind, of libp2p's daemon (p2pd) and of sockets are translated here and leave as ours.
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from hivemind.p2p import P2P, P2PDaemonError, PeerID
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarm.addresses import dialable, dialable_by_others, parsed, peer_address
from swarm.arrivals import listen, take_streams
from swarm.background import finish, running
from swarm.errors import ConfigError, PeerUnreachable, SwarmError
from swarm.identity import Identity, holding, load_identity, temporary_identity
from swarm.listening import check_host_maddrs, first_line, sentence_of_p2pd
from swarm.passing_folder import passing_folder
from swarm.quiet import quiet_hivemind
from swarm.streams import (
    FIRST_FRAME_S,
    MAX_BYTES_PER_PEER,
    VAIN_STREAM_S,
    ByteBudget,
    EndOfStream,
    FrameStream,
    IncomingStreams,
    StreamRules,
)
from swarm.wire.blocks import PeerId
from swarm.wire.frames import BadFrame, FrameDecoder, encode_frame
from swarm.wire.messages import SessionError

__all__ = ["EndOfStream", "FrameStream", "Handler", "Transport", "native_id", "open_transport"]

logger = logging.getLogger(__name__)

MAX_P2PD_FILES = 16_384
START_S = 20.0
STOP_S = 5.0
MAX_SOCKET_FOLDER_LETTERS = 60
GUARD = Path(__file__).with_name("p2pd_guard.py")

Handler = Callable[[FrameStream], Awaitable[None]]


class Transport:
    """Our place in the network: a peer id, addresses, streams in and streams out. See `open_transport`."""

    def __init__(self, p2p: "_Guarded", identity: Identity) -> None:
        self.p2p = p2p
        self.identity = identity
        self.peer_id = identity.peer_id
        self.addresses: tuple[str, ...] = ()
        self.incoming: IncomingStreams = p2p.incoming
        self._handlers: set[asyncio.Task[Any]] = set()

    async def refresh_addresses(self) -> tuple[str, ...]:
        """Ask where others reach us now, with `/p2p/` and our id; relays come and go. () if nowhere.

        Raises SwarmError if p2pd does not say.
        """
        try:
            _, maddrs = await self.p2p._client.identify()
        except (P2PDaemonError, OSError, EOFError, ValueError) as error:
            raise SwarmError(f"p2pd does not say where we are reached: {first_line(error)}") from error
        self.addresses = dialable_by_others([f"{maddr}/p2p/{self.peer_id}" for maddr in maddrs])
        return self.addresses

    async def connect(self, peer_id: PeerId, addresses: Sequence[str] = ()) -> None:
        """Make sure that there is a connection. Raises PeerUnreachable. At once if there is one already."""
        if peer_id == self.peer_id:
            raise PeerUnreachable("a peer cannot dial itself", peer_id)
        maddrs = [maddr for address in addresses if (maddr := dialable(address, peer_id))]
        try:
            await self.p2p._client.connect(native_id(peer_id), maddrs)
        except (P2PDaemonError, OSError, EOFError, ValueError) as error:
            raise PeerUnreachable(f"cannot reach {peer_id}: {first_line(error)}", peer_id) from error

    async def open_stream(
        self,
        peer_id: PeerId,
        protocol: str,
        addresses: Sequence[str] = (),
        *,
        limit: int,
        decoder: FrameDecoder,
    ) -> FrameStream:
        """Open a stream, dialling `addresses` first. Frames to us may take `limit` bytes.

        Raises PeerUnreachable if the peer cannot be dialled or does not speak `protocol`.
        """
        if addresses or peer_id == self.peer_id:
            await self.connect(peer_id, addresses)
        try:
            _, reader, writer = await self.p2p.call_binary_stream_handler(native_id(peer_id), protocol)
        except (P2PDaemonError, OSError, EOFError, ValueError) as error:
            raise PeerUnreachable(
                f"no {protocol} stream to {peer_id}: {first_line(error)}", peer_id
            ) from error
        return FrameStream(
            peer_id, reader, writer, StreamRules(limit, decoder), ByteBudget(MAX_BYTES_PER_PEER)
        )

    async def serve(self, protocol: str, handler: Handler, *, limit: int, decoder: FrameDecoder) -> None:
        """Call `handler` with every stream that a peer opens; the stream is closed when it returns.

        A peer may hold MAX_STREAMS_PER_PEER streams; one more is told `busy` and closed, and one that says
        nothing for FIRST_FRAME_S is closed too. What a handler raises ends its own stream alone.
        """

        rules = StreamRules(limit, decoder, first_frame_s=FIRST_FRAME_S)

        async def accept(
            info: StreamInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            peer_id = PeerId(info.peer_id.to_base58())
            budgets = self.incoming.budget(peer_id), self.incoming.loop_budget(peer_id)
            stream = FrameStream(peer_id, reader, writer, rules, *budgets)
            stream.loop_budget.charge(VAIN_STREAM_S)
            await self._handle(protocol, handler, stream)

        await self.p2p.add_binary_stream_handler(protocol, accept)

    async def _handle(self, protocol: str, handler: Handler, stream: FrameStream) -> None:
        """The top of a stream's task, which hivemind started: nothing escapes, not even a cancellation."""
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            with self.incoming.counted(stream.remote_id) as is_admitted:
                if is_admitted:
                    await _handled(protocol, handler, stream)
                else:
                    stream.write_nowait(_TOO_MANY)
        except asyncio.CancelledError:
            logger.debug("stream of %s cancelled", stream.remote_id)
        finally:
            stream.close()
            self._handlers.discard(task)

    async def _fail_with_p2pd(self) -> None:
        """Without p2pd every peer seems gone. It is not their fault: the process has to end."""
        code = await self.p2p._child.wait()
        raise SwarmError(f"the network process p2pd ended by itself (exit code {code}): start again")

    async def _stop(self) -> None:
        for task in self._handlers:
            task.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=STOP_S)
        await self.p2p.shutdown()


@asynccontextmanager
async def open_transport(
    identity: Identity | Path | None = None,
    *,
    initial_peers: Sequence[str] = (),
    host_maddrs: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    announce_maddrs: Sequence[str] = (),
    use_relay: bool = True,
    client_only: bool = False,
) -> AsyncIterator[Transport]:
    """Start p2pd and join libp2p's network; both end with the block.

    Without `identity` a new one is used and forgotten. A `client_only` peer listens nowhere: it dials others
    and cannot be dialled. Whoever starts a network or announces an address claims to be public, and relays.
    Raises ConfigError with a sentence if the machine or an argument is the reason; SwarmError if p2pd ends.
    """
    async with AsyncExitStack() as stack:
        if identity is None:
            identity = stack.enter_context(temporary_identity())
        elif isinstance(identity, Path):
            identity = load_identity(identity)
        stack.enter_context(holding(identity))
        host_maddrs = () if client_only else host_maddrs
        check_host_maddrs(host_maddrs)
        addresses: dict[str, Any] = {
            "identity_path": str(identity.path),
            "initial_peers": [peer_address(maddr) for maddr in initial_peers],
            "host_maddrs": list(host_maddrs),
            "announce_maddrs": [str(parsed(maddr)) for maddr in announce_maddrs] or None,
        }
        is_public = not client_only and (bool(announce_maddrs) or not initial_peers)
        roles = _roles(is_public=is_public, is_client=client_only, use_relay=use_relay)
        p2p = await _started(stack.enter_context(_sockets_in_a_folder()), addresses | roles)
        transport = Transport(p2p, identity)
        stack.push_async_callback(lambda: finish(transport._stop(), within_s=2 * STOP_S))
        await transport.refresh_addresses()
        async with running(transport._fail_with_p2pd()):
            yield transport


def _roles(*, is_public: bool, is_client: bool, use_relay: bool) -> dict[str, Any]:
    return {
        "use_relay": use_relay,
        "use_auto_relay": use_relay and not is_client and not is_public,
        "no_listen": is_client,
        "dht_mode": "client" if is_client else "server",
        "force_reachability": "public" if is_public else None,
    }


class _Guarded(P2P):  # type: ignore[misc]
    """P2P whose daemon is started through p2pd_guard.py."""

    async def _cut_off(self, peer_id: PeerId) -> None:
        """End the connection to a peer, with all of its streams; it may dial again."""
        with suppress(P2PDaemonError, OSError, EOFError, ValueError):
            async with asyncio.timeout(STOP_S):
                await self._client.disconnect(native_id(peer_id))

    @staticmethod
    def _make_process_args(*args: Any, **kwargs: Any) -> list[str]:
        guard = [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(MAX_P2PD_FILES)]
        return [*guard, *P2P._make_process_args(*args, **kwargs)]

    incoming: IncomingStreams

    def _start_listening(self) -> None:
        """As hivemind does, but what a peer opens beyond its limits is refused before it costs others."""

        async def taking() -> None:
            control = self._client.control
            refusal = b"".join(encode_frame(_TOO_MANY))
            with listen(control.listen_maddr.value_for_protocol("unix")) as listener:
                await take_streams(listener, self.incoming, refusal, control._handler, self._cut_off)

        self._listen_task = asyncio.create_task(taking())  # noqa: TID251 - P2P ends it


@contextmanager
def _sockets_in_a_folder() -> Iterator[type[_Guarded]]:
    """Our P2P, with the sockets between it and p2pd in a folder that only we may enter and that ends with us.

    hivemind would put them into /tmp, where a process that is killed leaves them. The longest path of a
    socket has about 100 bytes, so not every temporary folder will do.
    """
    usual = tempfile.gettempdir()
    place = usual if usual.isascii() and len(usual) <= MAX_SOCKET_FOLDER_LETTERS else "/tmp"
    with passing_folder(Path(place)) as folder:
        ours = {"_UNIX_SOCKET_PREFIX": f"/unix{folder}/", "incoming": IncomingStreams()}
        yield cast(type[_Guarded], type("_GuardedInFolder", (_Guarded,), ours))


async def _started(kind: type[_Guarded], arguments: dict[str, Any]) -> _Guarded:
    """Start p2pd. A cancellation waits for it, so that there is something to end."""
    quiet_hivemind()
    created: list[_Guarded] = []

    async def create() -> None:
        p2p = await kind.create(nat_port_map=False, check_if_identity_free=False, **arguments)
        created.append(p2p)

    try:
        await finish(create(), within_s=START_S)
    except (P2PDaemonError, TimeoutError, ValueError, OSError) as error:
        raise ConfigError(sentence_of_p2pd(str(error), arguments["initial_peers"])) from error
    except BaseException:
        for p2p in created:
            await p2p.shutdown()
        raise
    return created[0]


async def _handled(protocol: str, handler: Handler, stream: FrameStream) -> None:
    try:
        await handler(stream)
    except BadFrame as error:
        logger.info("%s broke the rules of %s: %s", stream.remote_id, protocol, error)
        stream.write_nowait(
            _refusal("unsupported" if error.code == "unsupported" else "bad_message", str(error))
        )
    except PeerUnreachable as error:
        logger.debug("%s: %s", protocol, error)
    except Exception:
        logger.exception("the handler of %s failed", protocol)
        stream.write_nowait(_refusal("internal", "internal error"))


def _refusal(code: Any, message: str) -> SessionError:
    return SessionError(session=bytes(16), epoch=0, code=code, message=message[:500], retry_after_ms=1000)


_TOO_MANY = _refusal("busy", "too many open streams")


def native_id(peer_id: PeerId) -> PeerID:
    """`peer_id` as hivemind writes it."""
    return PeerID.from_base58(peer_id)
