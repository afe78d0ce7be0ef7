"""Every message: named, frozen, bounded, and the same after the wire."""

from typing import Any, get_args

import msgspec
import pytest

from swarm.wire.bounds import MAX_POSITION, MAX_STEP_TOKENS, ErrorCode
from swarm.wire.messages import (
    MESSAGES,
    Bind,
    BindAck,
    Close,
    ForkOf,
    Heartbeat,
    Hello,
    Message,
    NextHop,
    SessionError,
    SessionProgress,
    Step,
    ToServer,
)

SESSION = bytes(16)
BIND = Bind(
    session=SESSION,
    epoch=1,
    stage=0,
    num_stages=2,
    start=0,
    end=4,
    fingerprint="0123456789abcdef",
    previous="asker",
    next=NextHop("peer", ("/ip4/127.0.0.1/tcp/1",)),
    commit=3,
    positions=b"\0" * 4,
    tags=b"\0" * 8,
    parent=ForkOf(SESSION, 3, 9),
)
STEP = Step(epoch=1, seq=0, attempt=0, position=0, num_tokens=1, base_tag=0, tag=1, commit=0, rows=1)
ACK = BindAck(session=SESSION, epoch=1, stage=0, position=0, tag=0, log_from=0, credit=0, linked=True)


def over_the_wire(message: Message, **changes: Any) -> Message:
    """The message with other field values, as a peer would read it."""
    fields = {**msgspec.to_builtins(message, builtin_types=(bytes,)), **changes}
    return msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=type(message))


@pytest.mark.parametrize("message", [BIND, STEP, ACK, Close(session=SESSION)], ids=lambda m: type(m).__name__)
def test_a_message_is_the_same_after_the_wire(message: Message) -> None:
    assert over_the_wire(message) == message


def test_every_kind_has_a_name_of_its_own() -> None:
    kinds = {kind.__struct_config__.tag for kind in MESSAGES}
    families = {kind for kind in MESSAGES if kind is not SessionError}
    assert len(kinds) == len(families | {SessionError})


@pytest.mark.parametrize("kind", dict.fromkeys(MESSAGES))
def test_every_message_is_frozen(kind: type[Message]) -> None:
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (STEP, {"num_tokens": MAX_STEP_TOKENS + 1}),
        (STEP, {"num_tokens": -1}),
        (STEP, {"position": MAX_POSITION + 1}),
        (STEP, {"position": 1.5}),
        (STEP, {"epoch": 2**32}),
        (STEP, {"tag": 2**63}),
        (STEP, {"rows": True}),
        (BIND, {"session": bytes(15)}),
        (BIND, {"session": bytes(17)}),
        (BIND, {"num_stages": 0}),
        (BIND, {"stage": 256}),
        (BIND, {"previous": ""}),
        (BIND, {"previous": "no spaces"}),
        (BIND, {"positions": bytes((1 << 18) + 4)}),
        (BIND, {"fingerprint": "short"}),
        (BIND, {"lease_ms": 10**9}),
        (ACK, {"linked": 1}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else type(value).__name__,
)
def test_a_value_out_of_range_does_not_decode(message: Message, changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        over_the_wire(message, **changes)


def test_an_error_code_that_nobody_knows_does_not_decode() -> None:
    with pytest.raises(msgspec.ValidationError):
        over_the_wire(SessionError(session=SESSION, epoch=1, code="busy"), code="bored")
    assert "busy" in get_args(ErrorCode)


def test_a_chain_stream_is_for_input_unless_it_says_output() -> None:
    hello = Hello(client="asker", session=SESSION, epoch=1, stage=0)
    assert hello.direction == "input"
    with pytest.raises(msgspec.ValidationError):
        over_the_wire(hello, direction="sideways")


def test_a_hop_that_executed_nothing_yet_says_minus_one() -> None:
    progress = SessionProgress(SESSION, 1, 0, -1, 5)
    beat = Heartbeat(sessions=(progress,))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(beat), type=Heartbeat) == beat


def test_the_reserved_kinds_can_be_told_from_unknown_ones() -> None:
    names = {kind.__struct_config__.tag for kind in get_args(ToServer)}
    assert {"forward", "backward", "reorder"} <= names
