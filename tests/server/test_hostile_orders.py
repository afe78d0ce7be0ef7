"""Orders that cost a client nothing: what they cost the server is bounded, and nobody else's trouble."""

import asyncio
from typing import Any, cast

import pytest
import torch

from server.serving import MAX_SLOW, Serving
from server.session_effects import SessionKey
from server.session_table import Refused
from swarm.background import running
from swarm.streams import VAIN_STREAM_S, StreamRules
from swarm.transport import Transport
from swarm.wire.blocks import SessionId
from swarm.wire.frames import FROM_CHAIN, FROM_CLIENT, FROM_SERVER, BadFrame
from swarm.wire.messages import Hello, StartReplay, Step, WantCredit
from tests.server.page_servers import CLIENT, SESSION, order, serving, stream_pair
from tests.wire.fuzz import within

CONTROL_BYTES = CHAIN_BYTES = 1 << 20


async def test_an_order_to_copy_all_the_blocks_that_there_could_be_takes_no_memory() -> None:
    async with serving() as server:
        for number in range(64):
            with within(64 << 10), pytest.raises(Refused, match="does not have these blocks"):
                await server.copies.send(CLIENT, order(0, 65_535, session=bytes([number]) * 16))


async def test_slow_orders_of_one_client_are_counted_over_all_of_its_connections() -> None:
    num_running = 0

    async def grant(*_: Any) -> None:
        nonlocal num_running
        num_running += 1
        await asyncio.Event().wait()

    async with serving() as server:
        server.host.grant = grant  # type: ignore[method-assign, assignment]
        served = Serving(cast(Transport, server.transport), server.host)
        ends = [
            await stream_pair(
                StreamRules(CONTROL_BYTES, FROM_SERVER), StreamRules(CONTROL_BYTES, FROM_CLIENT)
            )
            for _ in range(3)
        ]
        async with running(*(served._on_control(ours) for _, ours in ends)):
            for theirs, _ in ends:
                for _ in range(MAX_SLOW):
                    await theirs.write(WantCredit(session=SESSION, epoch=0, position=9, wait_ms=9999))
            async with asyncio.timeout(5):
                while num_running < MAX_SLOW:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert num_running == MAX_SLOW
        for pair in ends:
            for stream in pair:
                stream.close()


async def test_a_stream_into_a_session_that_breaks_the_rules_is_charged_as_one_that_came_to_nothing() -> None:
    async with serving() as server:
        await server.bind(commit=0)
        served = Serving(cast(Transport, server.transport), server.host)
        theirs, ours = await stream_pair(
            StreamRules(CHAIN_BYTES, FROM_CHAIN), StreamRules(CHAIN_BYTES, FROM_CHAIN)
        )
        ours.remote_id = CLIENT
        step = Step(
            epoch=0, seq=0, attempt=0, position=0, num_tokens=1, base_tag=0, tag=1, commit=0, rows=1
        )  # fmt: skip
        await theirs.write(Hello(client=CLIENT, session=SESSION, epoch=0, stage=0))
        await theirs.write(step, [torch.zeros(1, 3)])
        with pytest.raises(BadFrame):
            await served._on_chain(ours)
        assert ours.loop_budget.owed_s() > 0.8 * VAIN_STREAM_S
        for stream in (theirs, ours):
            stream.close()


async def test_a_replay_is_ordered_once_at_a_time_for_what_waits_of_it_is_not_counted() -> None:
    async with serving() as server:
        await server.bind(commit=0)
        driver = server.host._driver_of(SessionKey(CLIENT, SessionId(SESSION)))
        replay = StartReplay(
            session=SESSION, epoch=0, start=0, start_tag=0, end=9, end_tag=7, stop_stage=1
        )  # fmt: skip
        server.host.replay(CLIENT, replay)
        driver.outgoing.begin(0)
        driver.outgoing.send(replay, lambda: ())
        with pytest.raises(Refused, match="under way") as refused:
            server.host.replay(CLIENT, replay)
        assert refused.value.code == "busy"
        driver.outgoing.begin(1)
        server.host.replay(CLIENT, replay)


async def test_a_greeting_that_waits_for_its_bind_is_not_woken_by_those_of_others() -> None:
    async with serving() as server:
        num_looked, look = 0, server.host.table.admit

        def admit(*args: Any, **options: Any) -> Any:
            nonlocal num_looked
            num_looked += 1
            return look(*args, **options)

        server.host.table.admit = admit  # type: ignore[method-assign]
        greeting = Hello(client=CLIENT, session=SESSION, epoch=0, stage=0)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(server.host.admit(CLIENT, greeting))
            await asyncio.sleep(0)
            for number in range(1, 30):
                await server.bind(session=bytes([number]) * 16)
            assert num_looked == 1
            await server.bind()
            async with asyncio.timeout(1):
                assert (await task).session.key == SessionKey(CLIENT, SessionId(SESSION))
        assert num_looked == 2
