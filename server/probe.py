"""Ready means ready: before a server announces itself, a stranger dials it and runs a session.

The stranger is a second, short-lived identity of this process with a p2pd of its own; it knows the server's
announced addresses and nothing else.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import torch

from server.host import HostedModel
from swarm.errors import ConfigError, PeerUnreachable
from swarm.streams import FrameStream
from swarm.transport import Transport, open_transport
from swarm.wire.blocks import PeerId
from swarm.wire.frames import (
    FROM_CHAIN,
    FROM_SERVER,
    MAX_CHAIN_FRAME_BYTES,
    MAX_CONTROL_FRAME_BYTES,
    BadFrame,
)
from swarm.wire.messages import Bind, BindAck, Close, Heartbeat, Hello, Ping, SessionError, Step, StepResult
from swarm.wire.protocols import CHAIN, CONTROL
from swarm.wire.tags import TagChain

logger = logging.getLogger(__name__)

PROBE_S = 20.0
NUM_TOKENS = 2


async def probe(peer_id: PeerId, addresses: Sequence[str], model: HostedModel) -> None:
    """Run a session of two tokens through all blocks of the server.

    Raises ConfigError, in one sentence, if that is not possible: then nobody else could either.
    """
    try:
        async with asyncio.timeout(PROBE_S), _stranger(addresses) as stranger:
            await _run_session(stranger, peer_id, addresses, model)
    except PeerUnreachable as error:
        raise ConfigError(
            f"others cannot reach this server at {', '.join(addresses)} ({error}): "
            "open the port, or name the right address with --announce-maddrs"
        ) from error
    except (TimeoutError, BadFrame) as error:
        raise ConfigError(
            f"this server does not answer a trial session ({error or 'silence'}): nor would it answer others"
        ) from error


def _stranger(addresses: Sequence[str]) -> AbstractAsyncContextManager[Transport]:
    is_relayed = any("/p2p-circuit" in address for address in addresses)
    return open_transport(client_only=True, use_relay=is_relayed)


async def _run_session(
    stranger: Transport, peer_id: PeerId, addresses: Sequence[str], model: HostedModel
) -> None:
    control = await stranger.open_stream(
        peer_id, CONTROL, addresses, limit=MAX_CONTROL_FRAME_BYTES, decoder=FROM_SERVER
    )
    session = secrets.token_bytes(16)
    await control.write(_bind(stranger.peer_id, session, model))
    await _acknowledged(control)
    incoming = await _chain(stranger, peer_id, session, is_output=True)
    outgoing = await _chain(stranger, peer_id, session, is_output=False)
    await outgoing.write(_step(), [torch.zeros(NUM_TOKENS, model.hidden_size, dtype=model.dtype)])
    frame = await incoming.read()
    if not isinstance(frame.message, StepResult) or not bool(torch.isfinite(frame.tensors[0]).all()):
        raise BadFrame("the answer to a trial step is not what it should be")
    await _closed(control, session)
    for stream in (incoming, outgoing, control):
        stream.close()


def _bind(client: PeerId, session: bytes, model: HostedModel) -> Bind:
    return Bind(
        session=session,
        epoch=1,
        stage=0,
        num_stages=1,
        start=model.span.start,
        end=model.span.end,
        fingerprint=model.fingerprint,
        previous=client,
        next=None,
        commit=0,
    )


async def _acknowledged(control: FrameStream) -> None:
    """Wait for the acknowledgement of the bind. Raises BadFrame if it is refused."""
    while True:
        message = (await control.read()).message
        if isinstance(message, SessionError):
            raise BadFrame(f"{message.code}: {message.message}")
        if isinstance(message, BindAck):
            return


async def _closed(control: FrameStream, session: bytes) -> None:
    """Close the session and wait until the server has read it: an unread Close would leave a lease behind."""
    await control.write(Close(session=session))
    await control.write(Ping(nonce=1))
    while True:
        message = (await control.read()).message
        if isinstance(message, Heartbeat) and message.nonce:
            return


async def _chain(stranger: Transport, peer_id: PeerId, session: bytes, *, is_output: bool) -> FrameStream:
    stream = await stranger.open_stream(peer_id, CHAIN, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN)
    direction = "output" if is_output else "input"
    await stream.write(
        Hello(client=stranger.peer_id, session=session, epoch=1, stage=0, direction=direction)  # type: ignore[arg-type]
    )
    return stream


def _step() -> Step:
    tags = TagChain(secrets.token_bytes(16))
    tags.append(range(NUM_TOKENS))
    return Step(
        epoch=1,
        seq=0,
        attempt=0,
        position=0,
        num_tokens=NUM_TOKENS,
        base_tag=0,
        tag=tags.tag(NUM_TOKENS),
        commit=0,
        rows=1,
    )
