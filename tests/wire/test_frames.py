"""Frames: what we write we read again, and no bytes of a stranger do more than raise BadFrame."""

import struct
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.wire.bounds import VERSION
from swarm.wire.frames import (
    FROM_CHAIN,
    FROM_CLIENT,
    FROM_SERVER,
    MAX_CHAIN_FRAME_BYTES,
    BadFrame,
    FrameDecoder,
    body_bytes,
    encode_frame,
)
from swarm.wire.messages import Message, Pages, Ping, Step

DECODERS = {"client": FROM_CLIENT, "server": FROM_SERVER, "chain": FROM_CHAIN}
STEP = Step(epoch=1, seq=2, attempt=0, position=3, num_tokens=2, base_tag=4, tag=5, commit=3, rows=1)
PAGES = Pages(block=1, offset=2, last=True)
MAX_EXTRA_BYTES = 4 << 20  # what decoding a few hundred hostile bytes may allocate, errors included


def raw_frame(message: Message, *tensors: torch.Tensor) -> bytes:
    return b"".join(encode_frame(message, tensors))


def body_of(message: Message, *tensors: torch.Tensor) -> bytearray:
    return bytearray(raw_frame(message, *tensors)[4:])


def body_with_header(header: object) -> bytearray:
    packed = msgspec.msgpack.encode(header)
    return bytearray(struct.pack(">BI", VERSION, len(packed)) + packed)


def decode_or_refuse(decoder: FrameDecoder, body: bytearray) -> None:
    """Fails on any exception but BadFrame."""
    with suppress(BadFrame):
        decoder.decode(body)


VALID_BODIES = [
    body_of(STEP, torch.randn(2, 8)),
    body_of(PAGES, torch.zeros(3, dtype=torch.bfloat16), torch.ones(2, 2, dtype=torch.int64)),
    body_of(Ping(nonce=7)),
]


def test_a_message_and_its_tensors_survive_the_wire() -> None:
    hidden = torch.randn(2, 8)
    frame = FROM_CHAIN.decode(body_of(STEP, hidden))
    assert msgspec.structs.replace(frame.message, tensors=()) == STEP
    assert torch.equal(frame.tensors[0], hidden)


def test_the_prefix_says_how_long_the_body_is() -> None:
    raw = raw_frame(STEP, torch.randn(2, 8))
    assert body_bytes(raw[:4], MAX_CHAIN_FRAME_BYTES) == len(raw) - 4


@pytest.mark.parametrize("size", [0, 4, 1001, 2**31, 2**32 - 1])
def test_a_length_outside_the_limit_is_refused_from_its_four_bytes_alone(size: int) -> None:
    with pytest.raises(BadFrame, match="limit"):
        body_bytes(size.to_bytes(4, "big"), 1000)


def test_eight_length_bytes_that_say_2_to_50_are_read_as_256_kib_of_an_unknown_version() -> None:
    # hivemind's own framing has lengths of 8 bytes; whoever speaks it to us is refused by its fifth byte.
    raw = (2**50).to_bytes(8, "big")
    size = body_bytes(raw[:4], MAX_CHAIN_FRAME_BYTES)
    assert size == 1 << 18
    with pytest.raises(BadFrame, match="version 0"):
        FROM_CHAIN.decode(bytearray(raw[4:].ljust(size, b"\0")))


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x01\x00\x00\x00"])
def test_a_body_shorter_than_its_head_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame, match="shorter"):
        FROM_CHAIN.decode(bytearray(body))


def test_another_version_is_unsupported() -> None:
    body = body_of(STEP, torch.randn(2, 8))
    body[0] = VERSION + 1
    with pytest.raises(BadFrame, match="version") as refusal:
        FROM_CHAIN.decode(body)
    assert refusal.value.code == "unsupported"


def test_an_unknown_kind_is_unsupported() -> None:
    with pytest.raises(BadFrame) as refusal:
        FROM_CLIENT.decode(body_with_header({"kind": "teleport"}))
    assert refusal.value.code == "unsupported"


def test_a_kind_of_another_family_is_unsupported() -> None:
    with pytest.raises(BadFrame) as refusal:
        FROM_SERVER.decode(body_of(Ping(nonce=1)))
    assert refusal.value.code == "unsupported"


def test_a_field_out_of_range_is_a_bad_message() -> None:
    with pytest.raises(BadFrame) as refusal:
        FROM_CLIENT.decode(body_with_header({"kind": "ping", "nonce": -1}))
    assert refusal.value.code == "bad_message"


def test_an_unknown_field_is_ignored() -> None:
    frame = FROM_CLIENT.decode(body_with_header({"kind": "ping", "nonce": 3, "mood": ["fine"]}))
    assert frame.message == Ping(nonce=3)


def test_a_header_longer_than_its_frame_is_refused() -> None:
    body = body_of(STEP, torch.randn(2, 8))
    body[1:5] = b"\xff\xff\xff\xff"
    with pytest.raises(BadFrame, match="longer"):
        FROM_CHAIN.decode(body)


@pytest.mark.parametrize("change", [-1, 1])
def test_tensor_bytes_that_the_header_does_not_explain_are_refused(change: int) -> None:
    body = body_of(STEP, torch.randn(2, 8))
    body = body[:change] if change < 0 else body + b"\0"
    with pytest.raises(BadFrame, match="explains"):
        FROM_CHAIN.decode(body)


SHAPES = {
    "2 to the 50": [2**25, 2**25],
    "past 63 bits": [2**31, 2**31, 2**31],
    "past 64 bits by its strides although empty": [0, 2**31, 2**31, 2**31],
    "above any dimension": [2**50],
    "a float": [2.0, 8],
    "a float that is no whole number": [1.5],
    "negative": [-1, -64],
    "too many dimensions": [1, 1, 1, 1, 2, 8],
    "a string": ["2", 8],
    "nothing": None,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_shape_out_of_all_bounds_is_refused(shape: object) -> None:
    header = {"kind": "pages", "block": 0, "offset": 0, "last": True, "tensors": [["float32", shape]]}
    tracemalloc.start()
    with pytest.raises(BadFrame):
        FROM_CHAIN.decode(body_with_header(header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_EXTRA_BYTES


CLAIMS = {
    "array of 4 billion tensors": b"\x82\xa4kind\xa4ping\xa7tensors\xdd\xff\xff\xff\xff",
    "4 billion dimensions": b"\x82\xa4kind\xa4ping\xa7tensors\x91\x92\xa7float32\xdd\xff\xff\xff\xff",
    "4 billion bytes": b"\x82\xa4kind\xa5close\xa7session\xc6\xff\xff\xff\xff",
    "map of 4 billion fields": b"\xdf\xff\xff\xff\xff\xa4kind\xa4ping",
    "ignored array of 4 billion": b"\x82\xa4kind\xa4ping\xa5hello\xdd\xff\xff\xff\xff",
    "100,000 nested arrays": b"\x83\xa4kind\xa4ping\xa5nonce\x01\xa1x" + b"\x91" * 100_000,
}


@pytest.mark.parametrize("header", CLAIMS.values(), ids=CLAIMS.keys())
def test_sizes_that_a_header_only_claims_cost_no_memory(header: bytes) -> None:
    body = bytearray(struct.pack(">BI", VERSION, len(header)) + header)
    tracemalloc.start()
    with pytest.raises(BadFrame):
        FROM_CLIENT.decode(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_EXTRA_BYTES


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(body=st.binary(max_size=300))
@settings(max_examples=150)
def test_arbitrary_bytes_only_raise_bad_frame(decoder: FrameDecoder, body: bytes) -> None:
    decode_or_refuse(decoder, bytearray(body))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["session", "epoch", "stage", "position", "positions", "tags", "tensors", "next", "parent", "sessions"]
)
KINDS = st.sampled_from(["bind", "step", "state_step", "heartbeat", "bind_ack", "hello", "pages", "record"])


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(kind=KINDS, fields=st.dictionaries(FIELDS, JUNK, max_size=8), rest=st.binary(max_size=40))
@settings(max_examples=100)
def test_wellformed_headers_full_of_junk_only_raise_bad_frame(
    decoder: FrameDecoder, kind: str, fields: dict[str, object], rest: bytes
) -> None:
    decode_or_refuse(decoder, body_with_header({"kind": kind, **fields}) + rest)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@given(
    body=st.sampled_from(VALID_BODIES),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 40),
)
@settings(max_examples=150)
def test_mutated_and_truncated_frames_only_raise_bad_frame(
    decoder: FrameDecoder, body: bytearray, changes: list[tuple[int, int]], cut: int
) -> None:
    mutated = bytearray(body)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    decode_or_refuse(decoder, mutated[: len(mutated) - cut])
