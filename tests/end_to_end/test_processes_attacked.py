"""Strangers break the rules of a server's streams while somebody's answer is being written.

Each attack ends in a structured error; the answers stay exact; the server lives on, at no moment takes more
memory than before, and in the end no more pages.
"""

import asyncio
import contextlib
import secrets
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
import torch

from server.serving import FIRST_FRAME_S
from swarm.background import running
from swarm.errors import PeerUnreachable
from swarm.incoming import MAX_STREAMS_PER_PEER
from swarm.streams import HALF_FRAME_S, FrameStream
from swarm.transport import open_transport
from swarm.wire.frames import FROM_CHAIN, MAX_CHAIN_FRAME_BYTES
from swarm.wire.messages import (
    BindAck,
    Close,
    Credit,
    Detach,
    ForkOf,
    Forward,
    Message,
    NextHop,
    Ping,
    Reorder,
    SessionError,
    StartReplay,
    StepResult,
    WantCredit,
)
from swarm.wire.protocols import CHAIN, CONTROL
from tests.end_to_end.attacked_server import NOBODY, NUM_TOKENS, Target, attack
from tests.end_to_end.attacker import (
    ANSWER_S,
    Attacker,
    Control,
    hidden,
    next_hop,
    open_attacker,
    refusal_on,
    step,
)
from tests.end_to_end.conversations import answer, expected_ids, open_client

DEADLINES_S = {CONTROL: HALF_FRAME_S, CHAIN: FIRST_FRAME_S}
LATE_S = 8.0  # a busy machine may be so late

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def streams_held(target: Target) -> Iterator["Future[dict[str, float]]"]:
    """From now on a stranger holds streams on which frames only begin. See `hold_streams`."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(asyncio.run, hold_streams(target))


# --- bytes ----------------------------------------------------------------------------------------


def frame(header: Any, body: bytes = b"", version: int = 1) -> bytes:
    """A frame around any header."""
    raw = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
    return struct.pack(">IBI", 5 + len(raw) + len(body), version, len(raw)) + raw + body


def as_header(message: Message, **changes: Any) -> dict[str, Any]:
    """A message as its header says it."""
    header: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    return header | changes


def bad_bytes(protocol: str) -> dict[str, tuple[bytes, str]]:
    """By what is wrong with them: bytes, and what the server says."""
    header = as_header(Ping(nonce=1) if protocol == CONTROL else step(1))
    return {
        "a length of 4 GiB": (b"\xff\xff\xff\xff", "bad_message"),
        "a length of nothing": (bytes(4), "bad_message"),
        "a header longer than its frame": (struct.pack(">IBI", 5, 1, 2**31), "bad_message"),
        "another version": (frame(header, version=9), "unsupported"),
        "an unknown kind": (frame({"kind": "teleport"}), "unsupported"),
        "a kind of the other direction": (frame({"kind": "bind_ack"}), "unsupported"),
        "no kind": (frame({}), "bad_message"),
        "noise": (frame(b"\xc1" + secrets.token_bytes(200)), "bad_message"),
        "a deep header": (frame(b"\x91" * 50_000), "bad_message"),
        "bytes that no header explains": (frame(header, bytes(99)), "bad_message"),
        "a tensor of 2^50 elements": (
            frame(header | {"tensors": [["float32", [2**30, 2**20], "raw"]]}, bytes(256)),
            "bad_message",
        ),
        "an empty tensor out of all bounds": (
            frame(header | {"tensors": [["float32", [2**31, 2**31, 0, 16], "raw"]]}),
            "bad_message",
        ),
    }


@pytest.mark.usefixtures("streams_held")  # begins here, and ends with the last test: its deadlines are long
@pytest.mark.parametrize("protocol", [CONTROL, CHAIN])
async def test_bytes_that_break_the_wire_are_answered_with_an_error(target: Target, protocol: str) -> None:
    said = {}
    async with attack(target) as attacker:
        for name, (raw, _) in bad_bytes(protocol).items():
            said[name] = await attacker.code_after(raw, protocol)
    assert said == {name: code for name, (_, code) in bad_bytes(protocol).items()}


def unfinished_bytes(protocol: str) -> dict[str, bytes]:
    """By what they are: bytes after which a server can only wait for more."""
    header = as_header(Ping(nonce=1) if protocol == CONTROL else step(1))
    half = frame(header | {"tensors": [["float32", [1, 64], "raw"]]}, bytes(256))[:100]
    found = {
        "a length in eight bytes": struct.pack(">Q", 2**50),
        "half a frame": half,
        "half a prefix": b"\x00\x00",
        "nothing": b"",
    }
    return found | ({"half a frame after a whole one": frame(header) + half} if protocol == CONTROL else {})


async def hold_streams(target: Target) -> dict[str, float]:
    """How many seconds late the server ends streams on which a stranger says no more, by what was said."""
    server = target.server
    late_s: dict[str, float] = {}

    async def hold(attacker: Attacker, protocol: str, name: str, raw: bytes) -> None:
        deadline_s = DEADLINES_S[protocol]
        held_s = await attacker.held_for(raw, protocol, deadline_s + LATE_S)
        late_s[f"{protocol}: {name}"] = held_s - deadline_s

    async with (
        open_attacker(server.peer_id, server.addresses, target.fingerprint) as attacker,
        asyncio.TaskGroup() as group,
    ):
        for protocol in DEADLINES_S:
            for name, raw in unfinished_bytes(protocol).items():
                group.create_task(hold(attacker, protocol, name, raw))
    return late_s


# --- steps ----------------------------------------------------------------------------------------

BAD_TENSORS: dict[str, tuple[torch.Tensor, ...]] = {
    "none": (),
    "two": (hidden(3), hidden(3)),
    "integers": (torch.ones(3, 64, dtype=torch.int64),),
    "too few tokens": (hidden(2),),
    "too wide": (hidden(3, 65),),
    "flat": (torch.ones(192),),
    "four axes": (torch.ones(1, 1, 3, 64),),
}


async def test_a_step_whose_tensors_are_wrong_ends_its_stream_with_an_error(target: Target) -> None:
    said = {}
    async with attack(target) as attacker:
        control = await attacker.control()
        for name, tensors in BAD_TENSORS.items():
            session, stream = await attacker.opened(control)
            await stream.write(step(3), tensors)
            said[name] = await refusal_on(stream)
            await control.stream.write(Close(session=session))
    assert said == dict.fromkeys(BAD_TENSORS, "bad_message")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
async def test_numbers_that_are_none_spoil_only_their_own_session(target: Target, value: float) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        session, stream = await attacker.opened(control)
        results = await attacker.chain(attacker.hello(session, direction="output"))
        for seq in range(20):
            await stream.write(step(8, seq=seq, position=8 * seq), [torch.full((8, 64), value)])
            async with asyncio.timeout(ANSWER_S):
                assert isinstance((await results.read()).message, StepResult)
        await control.stream.write(Close(session=session))


async def test_steps_that_contradict_the_session_are_refused_and_change_nothing(target: Target) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        session, stream = await attacker.opened(control)
        await stream.write(step(4, position=9), [hidden(4)])
        await _expect(control, "gap")
        await stream.write(step(4, seq=1, attempt=1, base_tag=7), [hidden(4)])
        await _expect(control, "gap")
        await stream.write(step(4, seq=9, attempt=2), [hidden(4)])
        await _expect(control, "gap")
        far = msgspec.structs.replace(step(4096, seq=10, attempt=3), position=2**24)
        await stream.write(far, [hidden(4096)])
        await _expect(control, "gap")
        await control.stream.write(Close(session=session))


async def _expect(control: Control, code: str) -> None:
    message = await control.next()
    assert isinstance(message, SessionError)
    assert message.code == code, message


# --- binds ----------------------------------------------------------------------------------------

BAD_BINDS: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"fingerprint": "f" * 32}, "wrong_model"),
    "blocks beyond the span": ({"end": 9}, "unsupported"),
    "no blocks": ({"start": 3, "end": 3}, "unsupported"),
    "blocks backwards": ({"start": 5, "end": 2}, "unsupported"),
    "a stage beyond the route": ({"stage": 5, "num_stages": 2}, "bad_message"),
    "half a boundary": ({"positions": bytes(3), "tags": bytes(8)}, "bad_message"),
    "tags without positions": ({"tags": bytes(8)}, "bad_message"),
}


async def test_binds_that_make_no_sense_are_refused_and_open_nothing(target: Target) -> None:
    said = {}
    async with attack(target) as attacker:
        control = await attacker.control()
        for name, (changes, _) in BAD_BINDS.items():
            answered = await control.ask(attacker.bind(secrets.token_bytes(16), **changes))
            said[name] = getattr(answered, "code", "accepted")
        assert (await control.vitals()).sessions == ()
    assert said == {name: code for name, (_, code) in BAD_BINDS.items()}


async def test_a_successor_that_cannot_be_had_is_said_in_the_acknowledgement(target: Target) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        silent = "/ip4/127.0.0.1/tcp/9"
        for peer, address in [
            (target.server.peer_id, ""),
            (NOBODY, silent),
            ("1", silent),
            (NOBODY, "nonsense"),
        ]:
            bind = attacker.bind(
                session := secrets.token_bytes(16), num_stages=2, next=NextHop(peer, (address,))
            )
            answered = await control.ask(bind)
            assert isinstance(answered, BindAck)
            assert not answered.linked
            await control.stream.write(Close(session=session))


async def test_a_successor_that_stops_reading_costs_its_own_session_and_no_other(target: Target) -> None:
    async def be_deaf(stream: FrameStream) -> None:
        await asyncio.Event().wait()

    async with attack(target) as attacker, open_transport() as deaf:
        await deaf.serve(CHAIN, be_deaf, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN)
        control = await attacker.control()
        way = next_hop(deaf)
        name, stream = await attacker.opened(control, end=3, num_stages=2, next=way)

        async def send() -> None:
            for seq in range(10_000):  # over and over from the start: every step takes back the one before
                await stream.write(step(128, seq=seq), [hidden(128)])

        async with running(send()):
            # Until the queue is full some hundred prompts must run, with half of the machine.
            while isinstance(refusal := await control.next(within_s=60.0), Credit):
                pass
        assert isinstance(refusal, SessionError)
        assert (refusal.session, refusal.code) == (name, "busy")
        stream.close()
        await control.stream.write(Close(session=name))


async def test_kinds_of_later_versions_are_unsupported_and_the_stream_goes_on(target: Target) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        for message in (Forward(start=0, end=6), Reorder(session=bytes(16), order=(0, 1))):
            await control.stream.write(message)
            await _expect(control, "unsupported")
        assert (await control.vitals()).free_tokens


# --- other people's sessions ------------------------------------------------------------------------


async def test_who_knows_a_session_id_can_neither_read_nor_write_nor_end_the_session(target: Target) -> None:
    server = target.server
    async with (
        open_client(target.swarm.initial_peers, target.model) as model,
        model.session() as session,
        open_attacker(server.peer_id, server.addresses, target.fingerprint) as attacker,
    ):
        notices: list[object] = []
        session.on_notice = notices.append
        await answer(model, session, 10)
        name, owner = session.driver.machine.session_id, session.driver.machine.client
        control = await attacker.control()
        for direction in ("input", "output"):
            stream = await attacker.chain(attacker.hello(name, client=owner, direction=direction))
            assert await refusal_on(stream) == "unauthorised"
        late = await attacker.chain(attacker.hello(name, client=owner, epoch=9))
        assert await refusal_on(late) == "unknown_session"
        foreign = attacker.hello(name)
        assert await refusal_on(await attacker.chain(foreign)) == "unknown_session"
        tag = session.driver.machine.history.tag(5)
        order = StartReplay(session=name, epoch=1, start=0, start_tag=0, end=5, end_tag=tag, stop_stage=0)
        for message in (order, WantCredit(session=name, epoch=1, position=99, wait_ms=1)):
            await control.stream.write(message)
            await _expect(control, "unknown_session")
        for silent in (Close(session=name), Detach(session=name)):
            await control.stream.write(silent)
        ours = await control.ask(attacker.bind(name, epoch=7))
        assert isinstance(ours, BindAck)
        assert ours.position == 0
        child = attacker.bind(secrets.token_bytes(16), parent=ForkOf(name, 5, tag))
        forked = await control.ask(child)
        assert isinstance(forked, BindAck)
        assert forked.position == 0
        assert await answer(model, session, NUM_TOKENS) == expected_ids(target.model, NUM_TOKENS)
        assert notices == []


# --- floods ---------------------------------------------------------------------------------------


async def test_one_peer_gets_so_many_streams_and_no_more(target: Target) -> None:
    async with attack(target) as attacker:
        controls = [await attacker.control() for _ in range(MAX_STREAMS_PER_PEER)]
        for control in controls:  # streams arrive in any order: these are answered before another is opened
            await control.vitals()
        late = [await attacker.chain(None) for _ in range(44)]
        assert [await refusal_on(stream) for stream in late] == ["busy"] * 44
        for control in controls:
            control.stream.close()
        async with asyncio.timeout(ANSWER_S):
            while await refusal_on(await attacker.chain(attacker.hello(bytes(16)))) != "unknown_session":
                pass


async def test_one_peer_gets_so_many_sessions_and_no_more(target: Target) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        codes = []
        for _ in range(500):
            answered = await control.ask(attacker.bind(secrets.token_bytes(16)))
            codes.append(getattr(answered, "code", "opened"))
        assert codes == ["opened"] * 256 + ["busy"] * 244
        control.stream.close()


@pytest.mark.slow
async def test_who_asks_and_does_not_listen_is_cut_off(target: Target) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        for _ in range(256):
            await control.ask(attacker.bind(secrets.token_bytes(16)))
        with contextlib.suppress(PeerUnreachable, TimeoutError):
            async with asyncio.timeout(2.0):
                while True:
                    await control.stream.write(Ping(nonce=1))
        another = await attacker.control()
        # It pays for its flood first: a second of the server's loop takes twenty. All 256 sessions go with
        # the stream that spoke for them.
        async with asyncio.timeout(90.0):
            while not isinstance(await another.ask(attacker.bind(secrets.token_bytes(16))), BindAck):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        another.stream.close()


# --- silence --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stream_on_which_a_frame_only_begins_is_ended_by_the_server_in_time(
    streams_held: "Future[dict[str, float]]",
) -> None:
    late_s = streams_held.result(timeout=60)
    assert len(late_s) == 9
    assert {name: seconds for name, seconds in late_s.items() if seconds > LATE_S} == {}
