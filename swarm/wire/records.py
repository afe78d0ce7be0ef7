"""What a peer announces in the DHT: bounded, dated, signed by the key that its peer id contains.

A record in bytes is a signature of 64 bytes and the msgpack that it signs, 2 KiB at most in all. Whoever
holds the bytes can check them alone: forged, malformed and outdated ones are refused wherever they come from.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from swarm.wire.blocks import PeerId, Span
from swarm.wire.bounds import Address, BlockIndex, Counter, Fingerprint, Peer
from swarm.wire.keys import SIGNATURE_BYTES, is_signed_by

MAX_RECORD_BYTES = 2048
MAX_PEER_ID_LETTERS = 64
MAX_LIFE_S = 60.0
CLOCK_SLACK_S = 5.0  # clocks may differ by 3 s, and a record travels for a moment
_SIGNED = b"murmur record 1\n"  # keeps signatures of records apart from those of anything else

Sign = Callable[[bytes], bytes]
Name = Annotated[str, Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Time = Annotated[float, Meta(ge=0, lt=1e11)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]
Seconds = Annotated[float, Meta(ge=0, le=60)]
State = Literal["joining", "online", "draining", "offline"]


class BadRecord(ValueError):
    """The bytes are no valid record of that peer now."""


class _Dated(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Who says it, in which order, and how long it holds (seconds since 1970).

    `sequence` grows with every record of the peer, also over its restarts: milliseconds since 1970 will do.
    """

    peer: Peer
    sequence: Counter
    issued_at: Time
    expires_at: Time


class ServerRecord(_Dated, frozen=True, kw_only=True, tag="server"):
    """A block server: what it hosts, how fast it is, and where it is reached.

    `throughput` is tokens/s through the whole span under load (prefill, many sessions), `inference_rps` the
    blocks that one token passes per second when it is alone, so that a hop of n blocks takes
    n / inference_rps seconds. `offline` is the farewell: readers drop such a server at once.
    """

    fingerprint: Fingerprint
    start: BlockIndex
    end: BlockIndex
    state: State
    throughput: Rate = 0.0
    inference_rps: Rate = 0.0
    free_tokens: Counter = 0
    queue_depth: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["none", "int8", "nf4"] = "none"
    adapters: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    version: Annotated[str, Meta(max_length=32)] = ""
    public_name: Name = ""
    addresses: Annotated[tuple[Address, ...], Meta(max_length=8)] = ()
    is_relayed: bool = False
    rtts_s: Annotated[dict[Peer, Seconds], Meta(max_length=32)] = {}

    @property
    def peer_id(self) -> PeerId:
        """The peer that the record is about and that signed it."""
        return PeerId(self.peer)

    @property
    def span(self) -> Span:
        """The blocks that the server hosts."""
        return Span(self.start, self.end)

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError("a span needs start < end")


class ModelRecord(_Dated, frozen=True, kw_only=True, tag="model"):
    """A line of the index of models, for people: some server's word that it hosts blocks of `name`."""

    name: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
    fingerprint: Fingerprint
    num_blocks: Annotated[int, Meta(ge=1, le=65_536)]


Record = ServerRecord | ModelRecord
R = TypeVar("R", ServerRecord, ModelRecord)
_decoder: msgspec.msgpack.Decoder[ServerRecord | ModelRecord] = msgspec.msgpack.Decoder(Record)
_encode = msgspec.msgpack.Encoder().encode


def seal_record(record: Record, sign: Sign) -> bytes:
    """Sign `record`. Raises BadRecord if it takes more than 2 KiB: send fewer addresses or neighbours."""
    payload = _encode(record)
    if len(payload) + SIGNATURE_BYTES > MAX_RECORD_BYTES:
        raise BadRecord(f"the record takes {len(payload) + SIGNATURE_BYTES} bytes of {MAX_RECORD_BYTES}")
    return sign(_SIGNED + payload) + payload


def fit_record(record: ServerRecord, sign: Sign) -> bytes:
    """Sign `record`, leaving out its farthest neighbours, then its last addresses, until it fits."""
    while True:
        try:
            return seal_record(record, sign)
        except BadRecord:
            if record.rtts_s:
                nearest = sorted(record.rtts_s, key=record.rtts_s.__getitem__)[: len(record.rtts_s) // 2]
                record = msgspec.structs.replace(record, rtts_s={p: record.rtts_s[p] for p in nearest})
            elif record.addresses:
                record = msgspec.structs.replace(record, addresses=record.addresses[:-1])
            else:
                raise


def open_record(raw: bytes, peer: str, now: float) -> ServerRecord:
    """The server record in `raw`, if `peer` signed it about itself and it holds at `now`; else BadRecord."""
    return _open(ServerRecord, raw, peer, now)


def open_model_record(raw: bytes, peer: str, now: float) -> ModelRecord:
    """As `open_record`, for a line of the index of models."""
    return _open(ModelRecord, raw, peer, now)


def _open(kind: type[R], raw: bytes, peer: str, now: float) -> R:
    record = open_any_record(raw, peer, now, slack_s=0.0)
    if not isinstance(record, kind):
        raise BadRecord(f"a record of kind {type(record).__name__} stands where {kind.__name__} belongs")
    return record


def open_any_record(raw: bytes, peer: str, now: float, slack_s: float = CLOCK_SLACK_S) -> Record:
    """The record in `raw`; one that ended up to `slack_s` ago passes. Raises BadRecord."""
    record = verified_record(raw, peer)
    if record.expires_at + slack_s <= now:
        raise BadRecord("the record has expired")
    if record.issued_at > now + CLOCK_SLACK_S:
        raise BadRecord("the record comes from the future")
    return record


def verified_record(raw: bytes, peer: str) -> Record:
    """The record in `raw`, signed by `peer` about itself for a minute at most, whenever. Raises BadRecord."""
    if len(raw) > MAX_RECORD_BYTES or len(peer) > MAX_PEER_ID_LETTERS:
        raise BadRecord(f"a record of {len(raw)} bytes is above the limit of {MAX_RECORD_BYTES}")
    record = _verified(raw, peer)
    if isinstance(record, str):
        raise BadRecord(record)
    return record


@lru_cache(maxsize=4096)  # the same record comes from every replica, every few seconds: 0.1 ms each
def _verified(raw: bytes, peer: str) -> Record | str:
    """The record, or the sentence that says what is wrong with it at any time."""
    payload = raw[SIGNATURE_BYTES:]
    try:
        record = _decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"the record does not decode: {error}"[:300]
    if record.peer != peer:
        return "the record is about another peer"
    if record.expires_at - record.issued_at > MAX_LIFE_S:
        return "the record claims to hold for too long"
    if not is_signed_by(peer, raw[:SIGNATURE_BYTES], _SIGNED + payload):
        return "the record is not signed by the peer that it is about"
    return record
