"""A stranger sends as much as he can of one thing, while somebody's answer is written.

The answers stay exact; the server lives, at no moment takes much more memory than before, is still there for
others, and has all of its pages in the end (`attack` in attacked_server.py looks at all of that).
"""

import asyncio
import secrets
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from swarm.errors import PeerUnreachable
from swarm.streams import FrameStream
from swarm.transport import open_transport
from swarm.wire.frames import FROM_CHAIN, MAX_CHAIN_FRAME_BYTES
from swarm.wire.messages import (
    BindAck,
    Close,
    CopyPages,
    Detach,
    ForkOf,
    Message,
    NextHop,
    Ping,
    StartReplay,
    StepResult,
    WantCredit,
)
from swarm.wire.protocols import CHAIN, CONTROL, PAGES
from tests.end_to_end.attacked_server import NOBODY, Target, attack
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

pytestmark = pytest.mark.timeout(180)

FLOOD_S = 1.2
Flood = Callable[[Attacker], Awaitable[None]]


async def send_forever(stream: FrameStream, make: Callable[[int], Message]) -> None:
    """Messages without a pause, and whatever is said to them thrown away."""

    async def read() -> None:
        while True:
            await stream.read()

    reading = asyncio.create_task(read())
    try:
        number = 0
        while True:
            await stream.write(make(number))
            number += 1
    finally:
        reading.cancel()
        with suppress(PeerUnreachable, asyncio.CancelledError):
            await reading


async def until_cut_off(stream: FrameStream, make: Callable[[int], Message]) -> None:
    with suppress(PeerUnreachable):
        await send_forever(stream, make)


def orders(make: Callable[[Attacker, int], Message]) -> Flood:
    """One order over and over, each time another, on a stream of its own."""

    async def flood(attacker: Attacker) -> None:
        control = await attacker.control()
        await send_forever(control.stream, lambda number: make(attacker, number))

    return flood


def of_one_session(make: Callable[[Attacker, bytes, int], Message], num_streams: int = 1) -> Flood:
    """Orders for a session of our own that holds 64 tokens, on several streams."""

    async def flood(attacker: Attacker) -> None:
        control = await attacker.control()
        session, chain = await opened(attacker, control)
        await fill(attacker, control, session, chain, 64)
        async with asyncio.TaskGroup() as group:
            for _ in range(num_streams):
                stream = (await attacker.control()).stream
                group.create_task(until_cut_off(stream, lambda number: make(attacker, session, number)))

    return flood


async def opened(attacker: Attacker, control: Control, **changes: Any) -> tuple[bytes, FrameStream]:
    """As `attacker.opened`, where others of our sessions may be spoken of meanwhile."""
    session = secrets.token_bytes(16)
    await control.stream.write(attacker.bind(session, **changes))
    while not isinstance(answer := await control.next(), BindAck) or answer.session != session:
        pass
    return session, await attacker.chain(attacker.hello(session))


async def fill(
    attacker: Attacker, control: Control, session: bytes, chain: FrameStream, num_tokens: int
) -> None:
    """Have the server compute so many tokens of a session, one step of 64 after the other."""
    results = await attacker.chain(attacker.hello(session, direction="output"))
    for seq in range(num_tokens // 64):
        await chain.write(step(64, seq=seq, position=64 * seq, attempt=seq), [hidden(64)])
        async with asyncio.timeout(ANSWER_S):
            assert isinstance((await results.read()).message, StepResult)


async def open_and_leave(attacker: Attacker) -> None:
    """Streams of all protocols, closed as soon as they are open."""
    while True:
        for protocol in (CONTROL, CHAIN, PAGES):
            (await attacker._raw_stream(b"", protocol)).close()


async def open_and_stay(attacker: Attacker) -> None:
    """Streams on which half a frame has come, as many as there may be."""
    half = struct.pack(">IBI", 60_000, 1, 50_000) + bytes(20_000)
    kept = [await attacker._raw_stream(half, (CONTROL, CHAIN)[number % 2]) for number in range(400)]
    await asyncio.sleep(FLOOD_S)
    assert kept


async def greet_for_others(attacker: Attacker) -> None:
    """Greetings for sessions that nobody has: each is held for a while."""
    while True:
        for is_output in (False, True):
            direction = "output" if is_output else "input"
            await attacker.chain(attacker.hello(secrets.token_bytes(16), direction=direction))


async def fill_and_leave_idle(attacker: Attacker) -> None:
    """More sessions than fit, one after the other: those that rest make room for those that come."""
    control = await attacker.control()
    while True:
        session, chain = await opened(attacker, control)
        with suppress(TimeoutError, PeerUnreachable):
            await fill(attacker, control, session, chain, 512)


def nobody(attacker: Attacker, number: int) -> bytes:
    return struct.pack("<QQ", number, 2**63)


def copy_of_everything(attacker: Attacker, number: int) -> Message:
    return CopyPages(
        session=nobody(attacker, number), epoch=1, position=9, tag=9, start=0, end=65_535, stage=0,
        to=NextHop(attacker.transport.peer_id),
    )  # fmt: skip


FLOODS: dict[str, Flood] = {
    "pings": orders(lambda attacker, number: Ping(nonce=number)),
    "binds of one session": orders(lambda attacker, number: attacker.bind(bytes(16), epoch=number)),
    "sessions opened": orders(lambda attacker, number: attacker.bind(nobody(attacker, number))),
    "sessions opened and closed": orders(
        lambda attacker, number: (
            Close(session=nobody(attacker, number // 2))
            if number % 2
            else attacker.bind(nobody(attacker, number // 2))
        )
    ),
    "detaches": orders(lambda attacker, number: Detach(session=nobody(attacker, number))),
    "copies of everything": orders(copy_of_everything),
    "binds that name an absent successor": orders(
        lambda attacker, number: attacker.bind(
            nobody(attacker, number), num_stages=2, next=NextHop(NOBODY, ("/ip4/127.0.0.1/tcp/9",))
        )
    ),
    "forks": of_one_session(
        lambda attacker, session, number: attacker.bind(
            nobody(attacker, number), parent=ForkOf(session, 64, step(64).tag)
        )
    ),
    "credit on many streams": of_one_session(
        lambda attacker, session, number: WantCredit(
            session=session, epoch=1, position=2**24, wait_ms=3_600_000, attempt=number
        ),
        num_streams=24,
    ),
    "copies of one session": of_one_session(
        lambda attacker, session, number: CopyPages(
            session=session,
            epoch=1,
            position=64,
            tag=step(64).tag,
            start=0,
            end=6,
            stage=0,
            to=next_hop(attacker.transport),
        )
    ),
    "streams opened and closed": open_and_leave,
    "streams with half a frame": open_and_stay,
    "greetings": greet_for_others,
    "sessions that fill the memory": fill_and_leave_idle,
}


OFTEN = {"sessions opened and closed", "credit on many streams", "sessions that fill the memory"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in FLOODS]
)
async def test_a_flood_is_the_flooders_own_trouble(target: Target, name: str) -> None:
    async with attack(target) as attacker:
        with suppress(TimeoutError, PeerUnreachable):
            async with asyncio.timeout(FLOOD_S):
                await FLOODS[name](attacker)


@pytest.mark.slow
async def test_replays_that_are_ordered_again_and_again_are_not_kept_in_memory(target: Target) -> None:
    async def be_deaf(stream: FrameStream) -> None:
        await asyncio.Event().wait()

    async with attack(target) as attacker, open_transport() as deaf:
        await deaf.serve(CHAIN, be_deaf, limit=MAX_CHAIN_FRAME_BYTES, decoder=FROM_CHAIN)
        control, tokens, sessions = await attacker.control(), 256, []
        for _ in range(6):
            session, chain = await opened(attacker, control, end=3, num_stages=2, next=next_hop(deaf))
            sessions.append((session, chain))
            for at in range(tokens):  # a log of single tokens, which a replay joins
                await chain.write(step(1, seq=at, position=at), [hidden(1)])
        while any(told.executed_seq < tokens - 1 for told in (await control.vitals()).sessions):
            pass
        for session, _ in sessions:
            order = StartReplay(
                session=session,
                epoch=1,
                start=0,
                start_tag=0,
                end=tokens,
                end_tag=step(tokens).tag,
                stop_stage=1,
            )
            for _ in range(100):
                await control.stream.write(order)
        await control.vitals()
        control.stream.close()


# --- captured, repeated, out of order -------------------------------------------------------------


async def test_frames_of_a_session_that_are_played_again_do_nothing_for_whoever_plays_them(
    target: Target,
) -> None:
    server = target.server
    async with (
        attack(target) as victim,
        open_attacker(server.peer_id, server.addresses, target.fingerprint) as thief,
    ):
        control, session = await victim.control(), secrets.token_bytes(16)
        bind = victim.bind(session)
        greeting, first = victim.hello(session), step(3)
        assert isinstance(await control.ask(bind), BindAck)
        results = await victim.chain(victim.hello(session, direction="output"))
        chain = await victim.chain(greeting)
        await chain.write(first, [hidden(3)])
        row = (await results.read()).tensors[0]

        captured = await thief.control()  # everything once more, from another peer: it has no such session
        assert isinstance(await captured.ask(bind), BindAck)
        for greeted in (greeting, victim.hello(session, direction="output")):
            stolen = await thief.chain(greeted)
            with suppress(PeerUnreachable):
                await stolen.write(first, [hidden(3)])
            code = await refusal_on(stolen)
            assert code in ("unauthorised", "")  # the step that was not read may break the stream before

        again = await control.ask(bind)  # and from the same one
        assert getattr(again, "code", "") == "fenced"
        twin = await victim.chain(greeting)
        for _ in range(20):
            await twin.write(first, [hidden(3)])
        await twin.write(step(1, seq=1, position=3, commit=3), [hidden(1)])
        answer = (await results.read()).message
        assert isinstance(answer, StepResult)
        assert (answer.seq, answer.position) == (1, 3), "what was played again left no result behind"
        await chain.write(step(3, seq=2), [hidden(3)])
        torch.testing.assert_close((await results.read()).tensors[0], row, rtol=0, atol=1e-4)
        for open_control in (control, captured):
            await open_control.stream.write(Close(session=session))


@pytest.mark.parametrize(
    "order",
    [
        (0, 2, 1, 3, 0, 2),
        pytest.param((1, 0, 2, 3), marks=pytest.mark.slow),
        pytest.param((0, 0, 1, 1), marks=pytest.mark.slow),
        pytest.param((3, 2, 1, 0), marks=pytest.mark.slow),
    ],
)
async def test_steps_out_of_order_and_twice_change_nothing_that_a_retry_does_not_mend(
    target: Target, order: tuple[int, ...]
) -> None:
    async with attack(target) as attacker:
        control = await attacker.control()
        session, chain = await opened(attacker, control)
        results = await attacker.chain(attacker.hello(session, direction="output"))
        for seq in order:
            await chain.write(step(2, seq=seq, position=2 * seq), [hidden(2)])
        rows = await rows_of_a_retry(chain, results, first_seq=max(order) + 1)
        other, untouched = await opened(attacker, control)
        honest = await attacker.chain(attacker.hello(other, direction="output"))
        for row, wanted in zip(rows, await rows_of_a_retry(untouched, honest, first_seq=0), strict=True):
            torch.testing.assert_close(row, wanted, rtol=0, atol=1e-4)
        control.stream.close()


async def rows_of_a_retry(chain: FrameStream, results: FrameStream, first_seq: int) -> list[torch.Tensor]:
    """What four steps from the start give, under the next numbers and another attempt."""
    for number in range(4):
        again = step(2, seq=first_seq + number, attempt=1, position=2 * number)
        await chain.write(again, [hidden(2)])
    rows: list[torch.Tensor] = []
    async with asyncio.timeout(ANSWER_S):
        while len(rows) < 4:
            frame = await results.read()
            if isinstance(frame.message, StepResult) and frame.message.seq >= first_seq:
                rows.append(frame.tensors[0])
    return rows
