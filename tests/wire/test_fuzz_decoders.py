"""Every decoder of bytes that come from other peers: a value or its own error, within a bound of memory.

The files of a model are test_fuzz_files.py's. Whoever adds a kind of message adds it to samples.py, or a test
fails here.
"""

import struct
import time
from typing import Any, get_args

import msgspec
import pytest
import torch
from hivemind.dht import DHTID
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.addresses import dialable
from swarm.dht_storage import BoundedStorage, opened, servers_key
from swarm.directory import ServerDirectory
from swarm.errors import LocalProtocolError
from swarm.session import Ticket, read_ticket
from swarm.wire.blocks import PeerId
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
from swarm.wire.keys import NotAPeerId, is_signed_by, public_key_of
from swarm.wire.messages import MESSAGES, Message, OnChain, ToClient, ToServer
from swarm.wire.records import (
    BadRecord,
    ModelRecord,
    open_any_record,
    open_model_record,
    open_record,
    seal_record,
)
from swarm.wire.tags import unpack_boundaries
from swarm.wire.tensors import TensorSpec, split_tensors
from tests.swarm.peers import FINGERPRINT, server_record
from tests.swarm.test_dht import fresh_identity
from tests.wire.fuzz import EXAMPLES, Decoder, check, within
from tests.wire.samples import SAMPLES

OURS = fresh_identity()
RICH: dict[str, Any] = {
    "addresses": (f"/ip4/203.0.113.7/tcp/31337/p2p/{OURS.peer_id}",) * 2,
    "adapters": ("a", "b"),
    "rtts_s": {fresh_identity().peer_id: 0.1},
    "public_name": "Zoë",
    "issued_at": 1000.0,
    "expires_at": 1030.0,
}
NOW = 1010.0
SERVER = server_record(OURS, **RICH)
MODEL = ModelRecord(
    peer=OURS.peer_id,
    sequence=1,
    issued_at=1000.0,
    expires_at=1030.0,
    name="m",
    fingerprint=FINGERPRINT,
    num_blocks=8,
)
SEALED = [seal_record(SERVER, OURS.sign), seal_record(MODEL, OURS.sign)]
TICKET = msgspec.msgpack.encode(
    Ticket(session=bytes(16), key=bytes(16), epoch=3, commit=9, tag=2**62, hops=((OURS.peer_id, 0, 4),))
)
FAMILIES: dict[str, tuple[FrameDecoder, Any]] = {
    "client": (FROM_CLIENT, ToServer),
    "server": (FROM_SERVER, ToClient),
    "chain": (FROM_CHAIN, OnChain),
}
pack = msgspec.msgpack.encode


def body_of(message: Message, *tensors: torch.Tensor) -> bytes:
    return b"".join(encode_frame(message, tensors))[4:]


def decode_frame(decoder: FrameDecoder, raw: bytes) -> None:
    """Tensors of a frame are views of its bytes: all of them together take what came, and nothing more."""
    frame = decoder.decode(bytearray(raw))
    assert sum(tensor.nbytes for tensor in frame.tensors) <= len(raw)


def split(raw: bytes) -> None:
    """The first byte says how long the specs are."""
    end = 1 + raw[0] if raw else 0
    specs = msgspec.msgpack.decode(raw[1:end], type=list[TensorSpec])
    assert sum(tensor.nbytes for tensor in split_tensors(specs, memoryview(bytearray(raw[end:])))) <= len(raw)


def store(raw: bytes) -> None:
    """A STORE of a stranger, as hivemind hands it to our table once the validator lets it pass."""
    key = DHTID.generate(servers_key(FINGERPRINT))
    if opened(key.to_bytes(), pack(OURS.peer_id), pack(raw), 1030.0) is not None:
        BoundedStorage().store_subkey(key, OURS.peer_id, pack(raw), time.time() + 20)


SPECS = pack([["float32", [2, 3]], ["int64", [1], "raw"]])


def frames_of(name: str) -> Decoder:
    """Frames of one family of messages, with and without tensors."""
    decoder, family = FAMILIES[name]
    bodies = [body_of(SAMPLES[kind]) for kind in get_args(family)]
    with_tensors = body_of(SAMPLES[get_args(family)[0]], torch.randn(2, 3), torch.ones(2, dtype=torch.int64))
    return Decoder(lambda raw: decode_frame(decoder, raw), [*bodies, with_tensors], BadFrame)


DECODERS: dict[str, Decoder] = {
    **{f"frames for a {name}": frames_of(name) for name in FAMILIES},
    "lengths of frames": Decoder(
        lambda raw: body_bytes(raw, MAX_CHAIN_FRAME_BYTES), [struct.pack(">I", 300)], BadFrame
    ),
    "tensors": Decoder(
        split,
        [bytes([len(SPECS)]) + SPECS + bytes(2 * 3 * 4 + 8)],
        (ValueError, msgspec.MsgspecError),
    ),
    "boundaries": Decoder(
        lambda raw: unpack_boundaries(raw[: len(raw) // 3], raw[len(raw) // 3 :]),
        [bytes(12), bytes(96)],
        ValueError,
    ),
    "records of servers": Decoder(lambda raw: open_record(raw, OURS.peer_id, NOW), SEALED[:1], BadRecord),
    "records of models": Decoder(
        lambda raw: open_model_record(raw, OURS.peer_id, NOW), SEALED[1:], BadRecord
    ),
    "records of any kind": Decoder(lambda raw: open_any_record(raw, OURS.peer_id, NOW), SEALED, BadRecord),
    "records that were signed whatever they say": Decoder(
        lambda raw: open_any_record(OURS.sign(b"murmur record 1\n" + raw) + raw, OURS.peer_id, NOW),
        [raw[64:] for raw in SEALED],
        BadRecord,
    ),
    "records that are pushed": Decoder(
        lambda raw: directory().apply(raw, OURS.peer_id), SEALED[:1], BadRecord
    ),
    "values of the DHT": Decoder(
        lambda raw: opened(bytes(20), pack(OURS.peer_id), raw, 1030.0), list(map(pack, SEALED))
    ),
    "keys of the DHT": Decoder(
        lambda raw: opened(raw, raw, pack(SEALED[0]), 1030.0), [pack(OURS.peer_id), pack(5)]
    ),
    "records for a table": Decoder(store, SEALED),
    "peer ids": Decoder(
        lambda raw: public_key_of(raw.decode("latin-1")), [OURS.peer_id.encode()], NotAPeerId
    ),
    "signatures": Decoder(
        lambda raw: is_signed_by(raw[:52].decode("latin-1"), raw[52:116], raw[116:]),
        [OURS.peer_id.encode() + SEALED[0]],
    ),
    "addresses": Decoder(
        lambda raw: dialable(raw.decode("utf-8", "replace"), PeerId(OURS.peer_id)),
        [address.encode() for address in ("/ip4/1.2.3.4/tcp/5/p2p/" + OURS.peer_id, "/dns4/a.b/udp/1/quic")],
        least=1 << 20,
    ),
    "tickets": Decoder(read_ticket, [TICKET], LocalProtocolError),
}


def directory() -> ServerDirectory:
    async def nobody(_: str) -> tuple[()]:
        return ()

    return ServerDirectory(FINGERPRINT, nobody, clock=lambda: NOW)


@EXAMPLES
@pytest.mark.parametrize("name", DECODERS)
def test_bytes_of_strangers_give_a_value_or_the_decoders_own_error(name: str, num_examples: int) -> None:
    check(DECODERS[name], num_examples)


def test_there_is_a_valid_sample_of_every_message() -> None:
    assert set(SAMPLES) == set(MESSAGES)
    for decoder, family in FAMILIES.values():
        for kind in get_args(family):
            assert type(decoder.decode(bytearray(body_of(SAMPLES[kind]))).message) is kind


SIZES = st.sampled_from([0, 1, 2**16, 2**31, 2**32 - 1])
HEADS = {
    "bin": (b"\xc6", b""),
    "str": (b"\xdb", b""),
    "array": (b"\xdd", b""),
    "map": (b"\xdf", b""),
    "ext": (b"\xc9", b"\x05"),
}


@EXAMPLES
def test_a_length_that_is_only_claimed_anywhere_in_a_message_costs_no_memory(num_examples: int) -> None:
    @given(
        kind=st.sampled_from(MESSAGES),
        place=st.integers(0, 2**16),
        head=st.sampled_from(list(HEADS)),
        size=SIZES,
    )
    @settings(max_examples=num_examples)
    def decode(kind: type[Message], place: int, head: str, size: int) -> None:
        decoder = next(decoder for decoder, family in FAMILIES.values() if kind in get_args(family))
        body = bytearray(body_of(SAMPLES[kind]))
        at = 5 + place % (len(body) - 5)
        body[at:at] = HEADS[head][0] + struct.pack(">I", size) + HEADS[head][1]
        body[1:5] = struct.pack(">I", len(body) - 5)
        with within(64 * len(body) + (64 << 10)):
            try:
                decode_frame(decoder, bytes(body))
            except BadFrame:
                return

    decode()
