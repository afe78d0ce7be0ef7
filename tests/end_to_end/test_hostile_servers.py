"""A client and a server that lies to it: the answer is finished exactly by an honest one, or with one error.

The hostile server looks better than the honest one, so every session begins there. What it does after a few
honest results is one line of the tables; where a line is no offence, the session may stay.
"""

import math
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import msgspec
import pytest
import torch

from swarm.health import Health
from swarm.wire.bounds import ErrorCode
from swarm.wire.messages import (
    BindAck,
    Credit,
    Heartbeat,
    Message,
    Ready,
    RecordPush,
    SessionError,
    SessionProgress,
    StepResult,
)
from tests.end_to_end.exact import small_model
from tests.end_to_end.hostile_server import (
    END,
    HostileServer,
    Outcome,
    Tensors,
    Trick,
    add_hostile,
    answered,
    answered_twice,
    changed,
    frame,
    raw_frame,
    said,
    tricks_on,
    with_rows,
)
from tests.end_to_end.swarm import CLEAN_S, Client, Offer, Swarm, open_swarm, until

STALL_S = 1.0
NOBODY = secrets.token_bytes(16)

pytestmark = pytest.mark.timeout(240)


def filled(value: float) -> Any:
    return with_rows(lambda rows: [torch.full_like(rows, value)])


def with_one(value: float) -> Any:
    def spoil(rows: torch.Tensor) -> list[torch.Tensor]:
        rows = rows.clone()
        rows[-1, 5] = value
        return [rows]

    return with_rows(spoil)


def twice(message: Message, tensors: Tensors) -> Iterator[bytes]:
    yield from [frame(message, *tensors)] * 2


def and_then(*raw: bytes) -> Any:
    """What it should send, and more."""
    return lambda message, tensors: iter([frame(message, *tensors), *raw])


def first(*raw: bytes) -> Any:
    return lambda message, tensors: iter([*raw, frame(message, *tensors)])


UNASKED = StepResult(epoch=1, seq=0, position=9, num_tokens=1, tag=5)
HONEST_RESULTS = 3
BAD_RESULTS: dict[str, Any] = {
    "a row too wide": with_rows(lambda rows: [torch.cat([rows, rows[:, :1]], dim=1)]),
    "a flat row": with_rows(lambda rows: [rows.reshape(-1)]),
    "three axes": with_rows(lambda rows: [rows[None]]),
    "integers": with_rows(lambda rows: [rows.to(torch.int64)]),
    "no tensor": with_rows(lambda rows: []),
    "two tensors": with_rows(lambda rows: [rows, rows]),
    "nan": filled(math.nan),
    "one nan": with_one(math.nan),
    "one infinity": with_one(-math.inf),
    "a position below zero": changed(position=-1),
    "a position of 2^31": changed(position=2**31),
    "a huge number of tokens": changed(num_tokens=2**63 - 1),
    "an epoch that is a word": changed(epoch="one"),
    "a kind of its own": changed(kind="gift"),
    "a kind that it may not say": said(raw_frame({"kind": "bind_ack"})),
    "an error on the wrong stream": said(frame(SessionError(session=NOBODY, epoch=1, code="busy"))),
    "noise": said(b"\x00\x00\x00\x20" + b"\xc1" * 32),
    "a length of 4 GiB": said(b"\xff\xff\xff\xff"),
    "half a frame and its end": lambda message, tensors: iter([frame(message, *tensors)[:40], END]),
    "the end": said(END),
    "answers that nobody asked for": said(*[frame(UNASKED, torch.zeros(1, 64))] * 100),
}
NO_ANSWERS: dict[str, Any] = {
    "a row too many": with_rows(lambda rows: [rows.repeat(2, 1)]),
    "of another position": changed(position=0),
    "of more tokens": changed(num_tokens=4096),
    "of another history": changed(tag=12),
    "of another epoch": changed(epoch=77),
    "silence": said(),
}
BAD_ACKS: dict[str, Any] = {
    "of a history that nobody has": changed(position=7, tag=9),
    "of a position beyond everything": changed(position=2**24),
    "of a position below zero": changed(position=-1),
    "with credit above all bounds": changed(credit=2**63 - 1),
    "linked to a number": changed(linked=7),
    "for a session of 3 bytes": changed(session=b"abc"),
    "and an unknown error": said(raw_frame({"kind": "session_error", "session": NOBODY, "code": "bored"})),
    "and the end": said(END),
}
NO_ACKS: dict[str, Any] = {
    "for nobody's session": changed(session=NOBODY),
    "of an epoch to come": changed(epoch=9),
    "of a stage that is not there": changed(stage=200),
    "never": said(),
}
FLOOD = frame(RecordPush(record=b"x" * 4096)) * 50
MANY = tuple(SessionProgress(NOBODY, 2**32 - 1, 255, 2**48, 2**24) for _ in range(4096))
ABSURD: dict[str, Any] = {
    "progress": 2**53,
    "queue_depth": 2**53,
    "free_tokens": 2**53,
    "nonce": 2**53,
    "sessions": MANY,
}
NO_OFFENCES: dict[str, tuple[tuple[type[Message], ...], Any]] = {
    "every result twice": ((StepResult,), twice),
    "results that nobody asked for": ((StepResult,), first(frame(UNASKED, torch.zeros(1, 64)))),
    "every acknowledgement twice": ((BindAck,), twice),
    "acknowledgements of others": ((BindAck,), lambda m, t: iter([*changed(session=NOBODY)(m, t), frame(m)])),
    "credit for ever": ((BindAck,), changed(credit=2**24)),
    "no log": ((BindAck,), changed(log_from=2**24)),
    "no link where none is needed": ((BindAck,), changed(linked=False)),
    "records of nobody": ((BindAck, Heartbeat), first(FLOOD)),
    "absurd heartbeats": ((BindAck, Heartbeat), first(frame(Heartbeat(**ABSURD)))),
    "ready for nothing": ((BindAck,), and_then(frame(Ready(session=NOBODY, epoch=1, stage=0, position=9)))),
    "credit for nobody": ((BindAck,), and_then(frame(Credit(session=NOBODY, epoch=1, stage=0, position=9)))),
}


@asynccontextmanager
async def hostile_and_honest() -> AsyncIterator[tuple[Swarm, HostileServer, Client]]:
    """A swarm with a server that does not lie, one that does, and a client; no page is left on the first."""
    async with open_swarm(small_model("llama"), Offer(0, 6)) as swarm:
        (honest,) = swarm.servers
        hostile = await add_hostile(swarm, 0, 6)
        yield swarm, hostile, await swarm.client()
        await until(lambda: not honest.pool.pages_in_use, CLEAN_S, "pages are free")


async def outcomes(
    swarm: Swarm, hostile: HostileServer, client: Client, tricks: dict[str, Trick], **options: Any
) -> dict[str, Outcome]:
    """How two sessions go for each trick, one trick after the other.

    Nobody's pause ends meanwhile. It takes 2 s, and on a busy machine the second session begins later: a
    server that is 50 ms nearer than the honest one may then be tried again, and left again.
    """
    found = {}
    for name, trick in tricks.items():
        hostile.trick, hostile.num_lies = trick, 0
        found[name] = await answered_twice(swarm, client, swarm.servers, clock=lambda: 0.0, **options)
        assert hostile.num_lies, f"nobody was told {name}"
    return found


def check_left(swarm: Swarm, found: dict[str, Outcome], *, is_blamed: bool = True) -> None:
    """Every session ended on the honest server; one that was opened later began there if there is blame."""
    honest, hostile = swarm.servers
    assert {name for name, it in found.items() if it.first != [honest]} == set()
    assert {name for name, it in found.items() if it.second != [honest]} == set()
    if is_blamed:
        assert {name for name, it in found.items() if it.avoided != {hostile.peer_id}} == set()
        kinds = {name: [notice.kind for notice in it.notices] for name, it in found.items()}
        assert {name: said for name, said in kinds.items() if said != ["lost", "recovered"]} == {}


def on_results(table: dict[str, Any]) -> dict[str, Trick]:
    return {
        name: tricks_on(StepResult, change=change, after=HONEST_RESULTS) for name, change in table.items()
    }


# --- results --------------------------------------------------------------------------------------


async def test_a_server_whose_results_break_the_rules_is_left_and_avoided() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        check_left(swarm, await outcomes(swarm, hostile, client, on_results(BAD_RESULTS)))


@pytest.mark.slow
async def test_a_server_that_does_not_answer_what_was_asked_is_left_and_avoided_in_the_end() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        found = await outcomes(swarm, hostile, client, on_results(NO_ANSWERS), stall_s=STALL_S)
        check_left(swarm, found)


@pytest.mark.slow
async def test_a_server_that_says_for_ever_that_it_has_a_step_in_hand_is_left_and_avoided() -> None:
    silent = on_results({"silence": said()})["silence"]

    def trick(message: Message, tensors: Tensors) -> Iterator[bytes] | None:
        if not isinstance(message, Heartbeat):
            return silent(message, tensors)
        sessions = [msgspec.structs.replace(session, num_in_hand=1) for session in message.sessions]
        return iter([frame(msgspec.structs.replace(message, sessions=tuple(sessions)))])

    async with hostile_and_honest() as (swarm, hostile, client):
        check_left(swarm, await outcomes(swarm, hostile, client, {"in hand": trick}, stall_s=STALL_S))


async def test_a_server_that_lies_after_some_good_answers_is_left_alone_longer_each_time() -> None:
    now_s, pauses_s = 0.0, []
    async with open_swarm(small_model("llama"), Offer(0, 6, blocks_per_s=1.0)) as swarm:
        hostile = await add_hostile(swarm, 0, 6)
        async with (await swarm.client())._open_network(swarm.servers) as network:
            network.health = Health(lambda: now_s)
            for number in range(3):
                hostile.trick = on_results(BAD_RESULTS)["nan"]
                await answered(swarm, network, Outcome(), number)
                pauses_s.append(network.health.retry_at(hostile.peer_id) - now_s)
                now_s += pauses_s[-1]
    assert pauses_s == [2, 4, 8]


async def test_what_a_server_says_beside_the_answer_changes_nothing() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        tricks = {
            name: tricks_on(*kinds, change=change, after=0) for name, (kinds, change) in NO_OFFENCES.items()
        }
        found = await outcomes(swarm, hostile, client, tricks)
        assert {name for name, it in found.items() if it.first != [hostile]} == set()
        assert {name: it.notices for name, it in found.items() if it.notices} == {}


# --- acknowledgements -----------------------------------------------------------------------------


async def test_a_server_whose_acknowledgements_break_the_rules_is_left_and_avoided() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        tricks = {name: tricks_on(BindAck, change=change, after=0) for name, change in BAD_ACKS.items()}
        check_left(swarm, await outcomes(swarm, hostile, client, tricks))


@pytest.mark.slow
async def test_a_server_that_does_not_acknowledge_a_bind_is_left_and_avoided() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        tricks = {name: tricks_on(BindAck, change=change, after=0) for name, change in NO_ACKS.items()}
        check_left(swarm, await outcomes(swarm, hostile, client, tricks))


# --- errors ---------------------------------------------------------------------------------------


def refusing(hostile: HostileServer, kind: type[Message], code: ErrorCode, position: int = 0) -> Trick:
    """Say this error, and nothing else, where an acknowledgement or a result is waited for."""
    error = SessionError(session=NOBODY, epoch=0, code=code, message="no", position=position, attempt=2**32)

    def refuse(message: Message, tensors: Tensors) -> Iterator[bytes]:
        hostile.tell_clients(error)
        yield from ()

    return tricks_on(kind, change=refuse, after=HONEST_RESULTS if kind is StepResult else 0)


BELIEVED = {"too_long"}
"""A server's word for it ends a session: how long a conversation it can take is known to it alone."""
BLAMELESS = {"busy", "draining"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [BindAck, StepResult])
async def test_a_server_that_refuses_everything_is_left_and_avoided(kind: type[Message]) -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        codes = set(get_args(ErrorCode)) - BELIEVED - BLAMELESS
        tricks = {code: refusing(hostile, kind, code) for code in sorted(codes)}
        tricks["a gap above"] = refusing(hostile, kind, "gap", position=2**24)
        check_left(swarm, await outcomes(swarm, hostile, client, tricks))


@pytest.mark.slow
async def test_a_server_that_is_always_busy_or_always_about_to_stop_is_left_without_blame() -> None:
    async with hostile_and_honest() as (swarm, hostile, client):
        tricks = {
            "busy": refusing(hostile, StepResult, "busy", position=2**24),
            "busy, and back to the start": refusing(hostile, StepResult, "busy"),
            "draining": refusing(hostile, StepResult, "draining"),
        }
        found = await outcomes(swarm, hostile, client, tricks)
        check_left(swarm, found, is_blamed=False)
        assert {name: it.avoided for name, it in found.items() if it.avoided} == {}
