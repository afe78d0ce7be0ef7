"""Records prove themselves: nothing forged, outdated, oversized or malformed is ever opened."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.identity import Identity, temporary_identity
from swarm.wire.blocks import PeerId, Span
from swarm.wire.keys import peer_id_of
from swarm.wire.records import (
    _SIGNED,
    MAX_RECORD_BYTES,
    BadRecord,
    ModelRecord,
    fit_record,
    open_any_record,
    open_model_record,
    open_record,
    seal_record,
)
from tests.swarm.peers import FINGERPRINT, sealed, server_record

encode = msgspec.msgpack.encode


@pytest.fixture(scope="module")
def ours() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


@pytest.fixture(scope="module")
def theirs() -> Iterator[Identity]:
    with temporary_identity() as identity:
        yield identity


def signed(identity: Identity, fields: dict[str, Any]) -> bytes:
    """Any fields at all, correctly signed."""
    payload = encode(fields)
    return identity.sign(_SIGNED + payload) + payload


def test_a_record_comes_back_as_it_was(ours: Identity) -> None:
    record = server_record(ours, adapters=("a",), addresses=("/ip4/127.0.0.1/tcp/5",), public_name="Zoë")
    opened = open_record(seal_record(record, ours.sign), ours.peer_id, time.time())
    assert opened == record
    assert (opened.span, opened.peer_id) == (Span(0, 4), ours.peer_id)


def test_a_record_of_the_largest_plausible_server_fits(ours: Identity) -> None:
    neighbours = {peer_id_of(bytes([n]) * 32): 0.1 + n / 1000 for n in range(12)}
    addresses = tuple(f"/ip4/203.0.113.{n}/tcp/31337/p2p/{ours.peer_id}" for n in range(4))
    raw = sealed(ours, rtts_s=neighbours, addresses=addresses, public_name="x" * 64)
    assert len(raw) <= MAX_RECORD_BYTES


def test_what_does_not_fit_is_refused_or_shortened(ours: Identity) -> None:
    neighbours = {peer_id_of(bytes([n]) * 32): n / 1000 for n in range(32)}
    record = server_record(ours, rtts_s=neighbours, addresses=("/ip4/203.0.113.7/tcp/31337",) * 8)
    with pytest.raises(BadRecord):
        seal_record(record, ours.sign)
    raw = fit_record(record, ours.sign)
    kept = open_record(raw, ours.peer_id, time.time())
    assert len(raw) <= MAX_RECORD_BYTES
    assert 8 <= len(kept.rtts_s) < 32
    assert max(kept.rtts_s.values()) < 0.016  # the nearest ones stay
    assert kept.addresses == record.addresses


def test_a_record_signed_by_another_peer_is_refused(ours: Identity, theirs: Identity) -> None:
    raw = seal_record(server_record(ours), theirs.sign)
    for peer in (ours.peer_id, theirs.peer_id):
        with pytest.raises(BadRecord):
            open_record(raw, peer, time.time())
    with pytest.raises(BadRecord):
        open_record(sealed(theirs), ours.peer_id, time.time())


@given(position=st.integers(0, 400), bit=st.integers(0, 7))
def test_a_record_with_any_bit_flipped_is_refused(ours: Identity, position: int, bit: int) -> None:
    raw = bytearray(sealed(ours))
    raw[position % len(raw)] ^= 1 << bit
    with pytest.raises(BadRecord):
        open_record(bytes(raw), ours.peer_id, time.time())


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_fail(ours: Identity, raw: bytes) -> None:
    with pytest.raises(BadRecord):
        open_record(raw, ours.peer_id, time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"start": 4, "end": 4},
        {"start": -1},
        {"end": 70_000},
        {"throughput": float("nan")},
        {"throughput": float("inf")},
        {"inference_rps": -1.0},
        {"issued_at": float("nan")},
        {"expires_at": float("inf")},
        {"state": "superb"},
        {"sequence": -1},
        {"public_name": "two\nlines"},
        {"public_name": "x" * 65},
        {"addresses": ["/ip4/1.2.3.4/tcp/1"] * 9},
        {"adapters": ["x"] * 9},
        {"rtts_s": {"not a peer id!": 0.1}},
        {"rtts_s": {"1" * 20: -0.1}},
        {"rtts_s": {"1" * 20: float("nan")}},
        {"fingerprint": ""},
        {"kind": "unknown"},
        {"peer": 5},
    ],
)
def test_a_signed_record_that_breaks_a_bound_is_refused(ours: Identity, changes: dict[str, Any]) -> None:
    fields = msgspec.to_builtins(server_record(ours))
    assert open_record(signed(ours, fields), ours.peer_id, time.time()).end == 4
    with pytest.raises(BadRecord):
        open_record(signed(ours, fields | changes), ours.peer_id, time.time())


def test_an_unknown_field_is_ignored(ours: Identity) -> None:
    fields = msgspec.to_builtins(server_record(ours)) | {"colour": "blue"}
    assert open_record(signed(ours, fields), ours.peer_id, time.time()).peer == ours.peer_id


def test_an_oversized_record_is_refused_even_if_signed(ours: Identity) -> None:
    fields = msgspec.to_builtins(server_record(ours)) | {"ballast": "x" * MAX_RECORD_BYTES}
    with pytest.raises(BadRecord, match="limit"):
        open_record(signed(ours, fields), ours.peer_id, time.time())


def test_a_record_holds_for_its_time_only(ours: Identity) -> None:
    raw = sealed(ours, issued_at=1000.0, expires_at=1030.0)
    assert open_record(raw, ours.peer_id, 1029.9).sequence == 1
    for now in (1030.0, 994.0):
        with pytest.raises(BadRecord):
            open_record(raw, ours.peer_id, now)
    assert open_any_record(raw, ours.peer_id, 1034.0).sequence == 1  # a node whose clock is ahead keeps it
    with pytest.raises(BadRecord):
        open_any_record(raw, ours.peer_id, 1036.0)


def test_a_record_cannot_claim_to_hold_for_more_than_a_minute(ours: Identity) -> None:
    with pytest.raises(BadRecord, match="too long"):
        open_record(sealed(ours, issued_at=1000.0, expires_at=1061.0), ours.peer_id, 1000.0)


def test_a_line_of_the_index_is_no_server_and_a_server_no_line(ours: Identity) -> None:
    line = ModelRecord(
        peer=ours.peer_id, sequence=1, issued_at=10.0, expires_at=40.0, name="m", fingerprint=FINGERPRINT,
        num_blocks=8,
    )  # fmt: skip
    raw = seal_record(line, ours.sign)
    assert open_model_record(raw, ours.peer_id, 10.0) == line
    with pytest.raises(BadRecord):
        open_record(raw, ours.peer_id, 10.0)
    with pytest.raises(BadRecord):
        open_model_record(sealed(ours), PeerId(ours.peer_id), time.time())
