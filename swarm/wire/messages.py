"""Every message of Murmur's wire: frozen, typed, bounded, checked once while it is decoded.

Two kinds of stream. A *control* stream joins a client to a server and carries binds, credit and
heartbeats of all their sessions. A *chain* stream carries one session's steps along one link, in one
direction, for one epoch; the client's stream to the last hop carries the results back.
Unknown fields are ignored, unknown kinds are answered with `unsupported`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from swarm.wire.bounds import (
    MAX_STAGES,
    Address,
    Attempt,
    BlockIndex,
    Counter,
    Epoch,
    ErrorCode,
    Fingerprint,
    Millis,
    Peer,
    Position,
    Seq,
    Session,
    Slot,
    Stage,
    Tag,
    Text,
    Tokens,
)
from swarm.wire.tensors import TensorSpec


class Message(msgspec.Struct, frozen=True, tag_field="kind"):
    """Base of all messages; `tensors` describes the raw bytes behind the header, in order."""

    tensors: Annotated[tuple[TensorSpec, ...], Meta(max_length=4)] = ()


class ForkOf(msgspec.Struct, frozen=True):
    """The parent of a forked session: what of it the child shares."""

    session: Session
    position: Position
    tag: Tag


class NextHop(msgspec.Struct, frozen=True):
    """Where a hop sends its output: a server with its addresses, or the client itself."""

    peer: Peer
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)] = ()
    slot: Slot = 0


# --- control, client -> server ------------------------------------------------------------------


class Bind(Message, frozen=True, tag="bind", kw_only=True):
    """Open a session on this hop, or bind it anew under a higher epoch.

    `positions` (u32) and `tags` (u64), packed little-endian, list the step boundaries of the client's
    history; the hop truncates to the longest one that it holds. `next` is None where the client itself
    receives the output. With `parent` a missing session is forked instead of opened empty. `is_long` asks for
    the rotary frequencies that `longrope` has for sequences beyond the original length.
    """

    session: Session
    epoch: Epoch
    stage: Stage
    slot: Slot = 0
    num_stages: Annotated[int, Meta(ge=1, le=MAX_STAGES)]
    start: BlockIndex
    end: BlockIndex
    fingerprint: Fingerprint
    previous: Peer
    next: NextHop | None
    commit: Position
    positions: Annotated[bytes, Meta(max_length=1 << 18)] = b""
    tags: Annotated[bytes, Meta(max_length=1 << 19)] = b""
    parent: ForkOf | None = None
    copy_from: Peer | None = None
    lease_ms: Annotated[int, Meta(ge=0, le=24 * 3_600_000)] = 1_800_000
    is_long: bool = False


class StartReplay(Message, frozen=True, tag="start_replay", kw_only=True):
    """Send what your log holds of `[start, end)` down the chain, as far as `stop_stage`."""

    session: Session
    epoch: Epoch
    slot: Slot = 0
    start: Position
    start_tag: Tag
    end: Position
    end_tag: Tag
    stop_stage: Stage


class WantCredit(Message, frozen=True, tag="want_credit", kw_only=True):
    """Grant room up to `position`, or say `busy` after `wait_ms`."""

    session: Session
    epoch: Epoch
    slot: Slot = 0
    position: Position
    wait_ms: Millis
    attempt: Attempt = 0


class Close(Message, frozen=True, tag="close", kw_only=True):
    """Free the session. Idempotent."""

    session: Session


class Detach(Message, frozen=True, tag="detach", kw_only=True):
    """Keep the session for its lease without me."""

    session: Session


class CopyPages(Message, frozen=True, tag="copy_pages", kw_only=True):
    """Send the KV cache of blocks `[start, end)` up to `position` to `to`, bound as `stage` under `epoch`."""

    session: Session
    epoch: Epoch
    slot: Slot = 0
    position: Position
    tag: Tag
    start: BlockIndex
    end: BlockIndex
    stage: Stage
    to: NextHop


class Ping(Message, frozen=True, tag="ping", kw_only=True):
    """Ask for a heartbeat now; `nonce` comes back, so that the client can measure the round trip."""

    nonce: Counter


# --- control, server -> client ------------------------------------------------------------------


class BindAck(Message, frozen=True, tag="bind_ack", kw_only=True):
    """What the hop holds after the bind: (position, tag), its log from `log_from`, room to `credit`.

    `linked` is False if the hop cannot reach its successor: that link alone goes through the client.
    """

    session: Session
    epoch: Epoch
    stage: Stage
    position: Position
    tag: Tag
    log_from: Position
    credit: Position
    linked: bool


class Ready(Message, frozen=True, tag="ready", kw_only=True):
    """A replay has brought this hop to `position`."""

    session: Session
    epoch: Epoch
    stage: Stage
    position: Position


class Credit(Message, frozen=True, tag="credit", kw_only=True):
    """The session may grow to `position` on this hop."""

    session: Session
    epoch: Epoch
    stage: Stage
    position: Position


class SessionError(Message, frozen=True, tag="session_error", kw_only=True):
    """A bind or a step of this session was refused; the cache is as it was, at `position`."""

    session: Session
    epoch: Epoch
    code: ErrorCode
    message: Text = ""
    stage: Stage = 0
    seq: Seq = 0
    attempt: Attempt = 0
    position: Position = 0
    retry_after_ms: Millis = 0


class SessionProgress(msgspec.Struct, frozen=True, array_like=True):
    """One attached session in a heartbeat: last executed step, credit, steps in hand, tokens cached.

    Steps in hand wait or run here.
    """

    session: Session
    epoch: Epoch
    stage: Stage
    executed_seq: Annotated[int, Meta(ge=-1, le=2**48)]
    credit: Position
    num_in_hand: Annotated[int, Meta(ge=0, le=2**16)] = 0
    position: Position = 0


class Heartbeat(Message, frozen=True, tag="heartbeat", kw_only=True):
    """The server lives. A beating loop with a still `progress` and a non-empty queue does not."""

    nonce: Counter = 0
    progress: Counter = 0
    queue_depth: Counter = 0
    free_tokens: Counter = 0
    sessions: Annotated[tuple[SessionProgress, ...], Meta(max_length=4096)] = ()


class Draining(Message, frozen=True, tag="draining", kw_only=True):
    """This server stops in `within_ms`: re-route every session; pages can still be copied."""

    within_ms: Millis


class RecordPush(Message, frozen=True, tag="record", kw_only=True):
    """The server's own signed DHT record, as soon as it changes."""

    record: Annotated[bytes, Meta(max_length=4096)]


# --- chain --------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello", kw_only=True):
    """First frame of a chain stream. `output` asks for the results of the session's last hop."""

    client: Peer
    session: Session
    epoch: Epoch
    stage: Stage
    slot: Slot = 0
    direction: Literal["input", "output"] = "input"


class Step(Message, frozen=True, tag="step", kw_only=True):
    """n >= 0 tokens on their way down the chain, one tensor `[n, hidden]` behind the header.

    The step puts its tokens at `position` and thereby truncates what lies above. `base_tag` and `tag`
    name the contents before and after. A hop that refused a step of `attempt` a drops the rest of a.
    `rows` is how many of the last rows the client wants back; `links` counts direct links so far.
    """

    epoch: Epoch
    seq: Seq
    attempt: Attempt
    position: Position
    num_tokens: Tokens
    base_tag: Tag
    tag: Tag
    commit: Position
    rows: Tokens
    links: Annotated[int, Meta(ge=0, le=MAX_STAGES)] = 0


class StateStep(Message, frozen=True, tag="state_step", kw_only=True):
    """A replayed part of the history: fills caches as far as `stop_stage`, answers nothing."""

    epoch: Epoch
    position: Position
    num_tokens: Tokens
    base_tag: Tag
    tag: Tag
    stop_stage: Stage


class StepResult(Message, frozen=True, tag="step_result", kw_only=True):
    """The wanted rows of a step, `[rows, hidden]`, from the last hop."""

    epoch: Epoch
    seq: Seq
    position: Position
    num_tokens: Tokens
    tag: Tag
    links: Annotated[int, Meta(ge=0, le=MAX_STAGES)] = 0


class Pages(Message, frozen=True, tag="pages", kw_only=True):
    """Part of a KV cache on its way to a successor: keys and values of one block, tokens from `offset`."""

    block: BlockIndex
    offset: Position
    last: bool


# --- kinds that later versions speak; today they are answered with `unsupported` -----------------


class Forward(Message, frozen=True, tag="forward", kw_only=True):
    """Stateless forward pass, with optional per-block prompts."""

    start: BlockIndex
    end: BlockIndex
    adapter: Text = ""


class Backward(Message, frozen=True, tag="backward", kw_only=True):
    """Gradient of a Forward with respect to its input."""

    start: BlockIndex
    end: BlockIndex
    adapter: Text = ""


class Reorder(Message, frozen=True, tag="reorder", kw_only=True):
    """Beam search: permute the sequences of a session."""

    session: Session
    order: Annotated[tuple[Stage, ...], Meta(max_length=256)]


ToServer = Bind | StartReplay | WantCredit | Close | Detach | CopyPages | Ping | Forward | Backward | Reorder
ToClient = BindAck | Ready | Credit | SessionError | Heartbeat | Draining | RecordPush
OnChain = Hello | Step | StateStep | StepResult | SessionError | Pages

MESSAGES: tuple[type[Message], ...] = tuple(
    kind for union in (ToServer, ToClient, OnChain) for kind in union.__args__
)
