"""Streams between peers: libp2p through hivemind's P2P. Only this file, daemon.py and arrivals.py do.

What goes over the streams is streams.py's; what a peer says about itself in the DHT is dht.py's. Errors of
hivemind, of libp2p's daemon (p2pd) and of sockets are translated here and leave as ours.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from hivemind.p2p import P2PDaemonError
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarm.addresses import dialable, dialable_by_others, parsed, peer_address
from swarm.arrivals import TOO_MANY, refusal
from swarm.background import finish, running
from swarm.daemon import GuardedP2P, native_id, sockets_in_a_folder, started
from swarm.errors import PeerUnreachable, SwarmError
from swarm.identity import Identity, holding, load_identity, temporary_identity
from swarm.incoming import IncomingStreams
from swarm.listening import check_host_maddrs, first_line
from swarm.streams import (
    FIRST_FRAME_S,
    MAX_BYTES_PER_PEER,
    VAIN_STREAM_S,
    ByteBudget,
    EndOfStream,
    FrameStream,
    StreamRules,
)
from swarm.wire.blocks import PeerId
from swarm.wire.frames import BadFrame, FrameDecoder

__all__ = ["EndOfStream", "FrameStream", "Handler", "Transport", "native_id", "open_transport"]

logger = logging.getLogger(__name__)

STOP_S = 5.0

Handler = Callable[[FrameStream], Awaitable[None]]


class Transport:
    """Our place in the network: a peer id, addresses, streams in and streams out. See `open_transport`."""

    def __init__(self, p2p: GuardedP2P, identity: Identity) -> None:
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
                    stream.write_nowait(TOO_MANY)
        except asyncio.CancelledError:
            logger.debug("stream of %s cancelled", stream.remote_id)
        finally:
            stream.close()
            self._handlers.discard(task)

    async def _stop(self) -> None:
        for task in self._handlers:
            task.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=STOP_S)
        await self.p2p.shutdown()


@asynccontextmanager
async def open_transport(
    identity: Identity | Path | str | None = None,
    *,
    initial_peers: Sequence[str] = (),
    host_maddrs: Sequence[str] = ("/ip4/127.0.0.1/tcp/0",),
    announce_maddrs: Sequence[str] = (),
    use_relay: bool = True,
    client_only: bool = False,
) -> AsyncIterator[Transport]:
    """Start p2pd and join libp2p's network; both end with the block.

    `identity` may be the name of its file; without it a new one is used and forgotten. A `client_only` peer
    listens nowhere: it dials others and cannot be dialled. Whoever starts a network or announces an address
    claims to be public. Whoever uses relays is one, within libp2p's limits, to those who are connected to it:
    p2pd knows no other way. Without `use_relay` it is none, and has no streams to or from peers that only
    relays reach; p2pd then takes 0.16 s of a core to start instead of 0.41, and 34 MB instead of 64.
    Raises ConfigError with a sentence if the machine or an argument is the reason; SwarmError if p2pd ends.
    """
    async with AsyncExitStack() as stack:
        if identity is None:
            identity = stack.enter_context(temporary_identity())
        elif not isinstance(identity, Identity):
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
        p2p = await started(stack.enter_context(sockets_in_a_folder()), addresses | roles)
        transport = Transport(p2p, identity)
        stack.push_async_callback(lambda: finish(transport._stop(), within_s=2 * STOP_S))
        await transport.refresh_addresses()
        async with running(p2p.fail_with_daemon(), p2p.fail_with_arrivals()):
            yield transport


def _roles(*, is_public: bool, is_client: bool, use_relay: bool) -> dict[str, Any]:
    return {
        "use_relay": use_relay,
        "use_auto_relay": use_relay and not is_client and not is_public,
        "no_listen": is_client,
        "dht_mode": "client" if is_client else "server",
        "force_reachability": "public" if is_public else None,
    }


async def _handled(protocol: str, handler: Handler, stream: FrameStream) -> None:
    try:
        await handler(stream)
    except BadFrame as error:
        logger.info("%s broke the rules of %s: %s", stream.remote_id, protocol, error)
        stream.write_nowait(
            refusal("unsupported" if error.code == "unsupported" else "bad_message", str(error))
        )
    except PeerUnreachable as error:
        logger.debug("%s: %s", protocol, error)
    except Exception:
        logger.exception("the handler of %s failed", protocol)
        stream.write_nowait(refusal("internal", "internal error"))
