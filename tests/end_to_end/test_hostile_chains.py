"""A liar in the middle of a route: honest servers before or behind it, and a client that cannot see who lies.

What a hop passes on, and what it says to the hop before it, go from server to server. Whom the client leaves
may be an honest neighbour too; the answer is exact, and no session goes to the liar again while there is
another.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from swarm.errors import SwarmError
from swarm.inference import open_session
from swarm.inputs import Inputs
from swarm.wire.messages import BindAck, Message, Pages, SessionError, Step, StepResult
from tests.end_to_end.exact import prompt, small_model
from tests.end_to_end.hostile_server import (
    END,
    HostileServer,
    Outcome,
    Tensors,
    Trick,
    add_hostile,
    answered_twice,
    changed,
    frame,
    said,
    tricks_on,
    with_rows,
)
from tests.end_to_end.swarm import CLEAN_S, BlockServer, Client, Offer, Swarm, open_swarm, until

HONEST_STEPS = 3
STALL_S = 1.0

pytestmark = pytest.mark.timeout(240)


def with_one(value: float) -> Any:
    def spoil(rows: torch.Tensor) -> list[torch.Tensor]:
        rows = rows.clone()
        rows[0, 3] = value
        return [rows]

    return with_rows(spoil)


BAD_STEPS: dict[str, Any] = {
    "one nan": with_one(math.nan),
    "one infinity": with_one(math.inf),
    "a row too wide": with_rows(lambda rows: [torch.cat([rows, rows[:, :1]], dim=1)]),
    "a row too many": with_rows(lambda rows: [torch.cat([rows, rows[:1]])]),
    "integers": with_rows(lambda rows: [rows.to(torch.int64)]),
    "no tensor": with_rows(lambda rows: []),
    "two tensors": with_rows(lambda rows: [rows, rows]),
    "a position below zero": changed(position=-1),
    "a kind that is no step": said(frame(StepResult(epoch=1, seq=1, position=9, num_tokens=0, tag=1))),
    "noise": said(b"\x00\x00\x00\x20" + b"\xc1" * 32),
    "a base that nobody has": changed(base_tag=77),
    "a position far above": changed(position=2**24),
}
SILENT_STEPS: dict[str, Any] = {
    "nothing": said(),
    "another epoch": changed(epoch=2**32 - 1),
    "an old number": changed(seq=0),
    "a number that skips some": changed(seq=40),
    "another history": changed(tag=99),
    "no rows": changed(rows=0),
    "half a step": lambda message, tensors: iter([frame(message, *tensors)[:40]]),
    "the end": said(END),
}


@asynccontextmanager
async def route_of_two(
    *honest: tuple[int, int], hostile: tuple[int, int]
) -> AsyncIterator[tuple[Swarm, HostileServer, Client]]:
    """Honest servers, and one that lies and begins in every route; no page is left on the others."""
    async with open_swarm(small_model("llama"), *(Offer(*span) for span in honest)) as swarm:
        others = list(swarm.servers)
        liar = await add_hostile(swarm, *hostile)
        yield swarm, liar, await swarm.client()
        await until(lambda: not any(server.pool.pages_in_use for server in others), CLEAN_S, "pages are free")


async def check_left(
    swarm: Swarm, liar: HostileServer, client: Client, tricks: dict[str, Trick], **options: Any
) -> None:
    """Whatever the trick: both answers end without the liar, which is avoided, and the second begins so."""
    found: dict[str, Outcome] = {}
    for name, trick in tricks.items():
        liar.trick, liar.num_lies = trick, 0
        found[name] = await answered_twice(swarm, client, swarm.servers, **options)
        assert liar.num_lies, f"nobody was told {name}"
    assert {name for name, it in found.items() if liar in it.first or liar in it.second} == set()
    assert {name for name, it in found.items() if liar.peer_id not in it.avoided} == set()


def on_steps(table: dict[str, Any]) -> dict[str, Trick]:
    return {
        name: discreetly(tricks_on(Step, change=change, after=HONEST_STEPS)) for name, change in table.items()
    }


def discreetly(trick: Trick) -> Trick:
    """The trick, and not a word to the client of what came of it."""
    return lambda message, tensors: iter(()) if isinstance(message, SessionError) else trick(message, tensors)


# --- before an honest server ----------------------------------------------------------------------


@pytest.mark.slow
async def test_a_hop_that_passes_on_what_breaks_the_rules_is_left() -> None:
    async with route_of_two((0, 3), (3, 6), (3, 6), hostile=(0, 3)) as (swarm, liar, client):
        await check_left(swarm, liar, client, on_steps(BAD_STEPS))


@pytest.mark.slow
async def test_a_hop_that_passes_on_nothing_of_use_is_left_in_the_end() -> None:
    async with route_of_two((0, 3), (3, 6), (3, 6), hostile=(0, 3)) as (swarm, liar, client):
        await check_left(swarm, liar, client, on_steps(SILENT_STEPS), stall_s=STALL_S)


@pytest.mark.parametrize("name", ["one nan", pytest.param("a base that nobody has", marks=pytest.mark.slow)])
async def test_an_honest_hop_that_complains_of_it_is_used_again_where_there_is_no_other(name: str) -> None:
    async with route_of_two((0, 3), (3, 6), hostile=(0, 3)) as (swarm, liar, client):
        await check_left(swarm, liar, client, on_steps({name: BAD_STEPS[name]}))


async def test_a_hop_that_passes_on_every_step_twice_changes_nothing() -> None:
    def twice(message: Message, tensors: Tensors) -> Iterator[bytes]:
        yield from [frame(message, *tensors)] * 2

    async with route_of_two((0, 3), (3, 6), hostile=(0, 3)) as (swarm, liar, client):
        liar.trick = tricks_on(Step, change=twice)
        outcome = await answered_twice(swarm, client, swarm.servers)
        assert liar in outcome.first
        assert outcome.notices == []


async def test_a_hop_that_the_client_carries_for_cannot_blame_the_next_one_either() -> None:
    async with route_of_two((0, 3), (3, 6), (3, 6), hostile=(0, 3)) as (swarm, liar, client):
        for name in ("one nan", "a row too wide", "noise"):
            spoil = tricks_on(Step, change=BAD_STEPS[name], after=HONEST_STEPS)
            unlink = tricks_on(BindAck, change=changed(linked=False), after=0)
            await check_left(
                swarm,
                liar,
                client,
                {name: lambda m, t, spoil=spoil, unlink=unlink: unlink(m, t) or spoil(m, t)},  # type: ignore[misc]
            )


# --- behind an honest server ----------------------------------------------------------------------


def answering(liar: HostileServer, raw: bytes) -> Trick:
    """Say this to the hop before us instead of answering the client."""

    def answer(message: Message, tensors: Tensors) -> Iterator[bytes]:
        liar.answer_predecessors(raw)
        yield from ()

    return tricks_on(StepResult, change=answer, after=HONEST_STEPS)


BAD_ANSWERS = {
    "the end": END,
    "noise": b"\xff" * 16,
    "a refusal": frame(SessionError(session=bytes(16), epoch=1, code="internal")),
    "an endless frame": b"\x00\x0f\xff\xff\x01" + b"x" * 50_000,
}


@pytest.mark.parametrize(
    "names", [["the end"], pytest.param([*BAD_ANSWERS][1:], marks=pytest.mark.slow, id="others")]
)
@pytest.mark.slow
async def test_a_hop_that_hangs_up_on_the_one_before_it_is_left_and_the_other_is_used_again(
    names: list[str],
) -> None:
    async with route_of_two((0, 3), (3, 6), hostile=(3, 6)) as (swarm, liar, client):
        tricks = {name: answering(liar, BAD_ANSWERS[name]) for name in names}
        await check_left(swarm, liar, client, tricks, stall_s=STALL_S)


@pytest.mark.slow
async def test_a_hop_that_goes_deaf_is_left_in_the_end() -> None:
    async with route_of_two((0, 3), (3, 6), hostile=(3, 6)) as (swarm, liar, client):
        await check_left(
            swarm, liar, client, {"silence": tricks_on(StepResult, change=said())}, stall_s=STALL_S
        )


# --- on its way out -------------------------------------------------------------------------------


PAGES: dict[str, Any] = {
    "never come": said(),
    "are no numbers": lambda message, tensors: iter(
        [
            frame(
                Pages(block=message.block, offset=message.offset, last=message.last),
                *(t * math.nan for t in tensors),
            )
        ]
    ),
    "are for other blocks": changed(block=77),
    "end": said(END),
}


@pytest.mark.parametrize(
    "name",
    ["are no numbers", *(pytest.param(n, marks=pytest.mark.slow) for n in PAGES if n != "are no numbers")],
)
async def test_a_server_that_says_it_stops_and_hands_over_rubbish_is_replayed_around(name: str) -> None:
    async with route_of_two((0, 6), hostile=(0, 6)) as (swarm, liar, client):
        leave = tricks_on(StepResult, change=lambda m, t: iter([frame(m, *t)]), after=HONEST_STEPS)
        spoil = tricks_on(Pages, change=PAGES[name], after=0)

        def trick(message: Message, tensors: Tensors) -> Iterator[bytes] | None:
            if leave(message, tensors) is not None:
                liar.drain()
            return spoil(message, tensors)

        liar.trick = trick
        outcome = await answered_twice(swarm, client, swarm.servers, stall_s=STALL_S)
        assert liar.num_lies
        assert liar not in outcome.first


# --- alone ----------------------------------------------------------------------------------------


def refusing_binds(liar: HostileServer) -> Trick:
    def refuse(message: Message, tensors: Tensors) -> Iterator[bytes]:
        liar.tell_clients(SessionError(session=bytes(16), epoch=0, code="wrong_model"))
        yield from ()

    return tricks_on(BindAck, change=refuse, after=0)


async def failed_with(swarm: Swarm, client: Client, liar: BlockServer) -> str:
    """The name of the error that ends a session for which there is no other server."""
    async with (
        client._open_network([liar]) as network,
        open_session(network, Inputs(swarm.model.ends.embed)) as session,
    ):
        session.driver.patience.stall_s, session.driver.patience.recover_s = 0.5, 2.0
        try:
            async with asyncio.timeout(30):
                for token in prompt(3, 12):
                    await session.feed([token])
        except SwarmError as error:
            return type(error).__name__
    return "none"


@pytest.mark.slow
async def test_without_an_honest_server_a_session_ends_in_one_error_before_long() -> None:
    def every(kind: type[Message], change: Any) -> Any:
        return lambda liar: tricks_on(kind, change=change, after=0)

    table: dict[str, Any] = {
        "nan": every(StepResult, with_one(math.nan)),
        "silence": every(StepResult, said()),
        "noise": every(StepResult, said(b"\xff" * 16)),
        "no acknowledgement": every(BindAck, said()),
        "lies": every(BindAck, changed(position=7, tag=9)),
        "refusals": refusing_binds,
    }
    async with open_swarm(small_model("llama")) as swarm, asyncio.TaskGroup() as group:
        ends = {}
        for name, make in table.items():
            liar = await add_hostile(swarm, 0, 6)
            liar.trick = make(liar)
            client = await swarm.client()
            ends[name] = group.create_task(failed_with(swarm, client, liar))
        ended = {name: await task for name, task in ends.items()}
        assert set(ended.values()) <= {"SwarmTimeout", "NoRouteError"}, ended
