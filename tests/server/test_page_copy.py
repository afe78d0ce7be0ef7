"""KV pages that come from strangers, and orders to send them: bounded before anything is read or copied."""

import asyncio
from typing import Any, cast

import pytest
import torch

from server.overloaded import Overloaded
from server.page_copy import CHUNK_BYTES, MAX_COPIES_OUT
from server.serving import Connection, Serving
from server.session_effects import SessionKey
from server.session_table import Refused
from swarm.background import running
from swarm.streams import StreamRules
from swarm.transport import Transport
from swarm.wire.blocks import SessionId
from swarm.wire.frames import FROM_CLIENT, FROM_SERVER, BadFrame
from swarm.wire.messages import Ping, SessionError
from swarm.wire.protocols import PAGES
from tests.server.page_servers import (
    CLIENT,
    COMMIT,
    EVERYTHING,
    LAYOUT,
    SESSION,
    SPAN,
    all_pages,
    hello,
    order,
    page,
    serving,
    stream_pair,
)

# --- pages that come -----------------------------------------------------------------------------


async def test_pages_that_come_are_cached_bit_for_bit_and_the_client_hears_of_it() -> None:
    async with serving() as server:
        sent = await server.open_with_pages()
        assert server.holds(sent)
        assert [type(message).__name__ for message in server.ears.heard] == ["BindAck", "Ready"]


async def test_pages_are_cached_on_the_device_of_the_model() -> None:
    layout = tuple((keys.to("meta"), values.to("meta")) for keys, values in LAYOUT)
    async with serving(layout=layout) as server:
        await server.open_with_pages()
        extents = server.host.rooms.cache(SessionKey(CLIENT, SessionId(SESSION))).layers
        assert [extent and extent.keys.device.type for extent in extents] == ["meta"] * len(SPAN)


async def test_a_commit_that_no_pool_can_hold_is_refused_before_a_page_is_read() -> None:
    async with serving() as server:
        await server.bind(commit=1 << 24)
        with pytest.raises(Refused, match="no KV room"):
            await server.take()


async def test_a_session_that_waits_for_no_pages_is_refused_before_a_page_is_read() -> None:
    async with serving() as server:
        await server.bind(commit=0)
        with pytest.raises(Refused, match="does not wait"):
            await server.take()
        await server.bind(commit=COMMIT, epoch=1)
        with pytest.raises(Refused, match="older epoch"):
            await server.take()


@pytest.mark.parametrize("unlike", [{"heads": 3}, {"dim": 16}, {"dtype": torch.bfloat16}], ids=str)
async def test_a_part_that_is_not_what_the_block_keeps_ends_the_copy_at_once(unlike: dict[str, Any]) -> None:
    async with serving() as server:
        await server.bind()
        with pytest.raises(BadFrame, match="not what this block keeps"):
            await server.take(page(2, 0, 1, **unlike))


@pytest.mark.parametrize(
    "frames", [[page(2, 0, COMMIT + 1)], [page(2, 0, 8), page(2, 9, 1)], [page(3, 0, 1)]]
)
async def test_pages_out_of_order_or_beyond_the_commit_are_refused(frames: list[Any]) -> None:
    async with serving() as server:
        await server.bind()
        with pytest.raises(BadFrame):
            await server.take(*frames)


async def test_a_session_takes_its_pages_from_one_stream_at_a_time() -> None:
    async with serving() as server:
        await server.bind()
        theirs, ours = await stream_pair(EVERYTHING, EVERYTHING)
        await theirs.write(hello())
        async with running(server.copies.take(ours)):
            await asyncio.sleep(0.05)
            with pytest.raises(Refused, match="under way"):
                await server.take(*all_pages())


# --- orders to send them --------------------------------------------------------------------------


async def test_pages_sent_are_those_that_were_cached() -> None:
    async with serving() as server, serving() as successor:
        sent = await server.open_with_pages()
        await successor.bind()
        async with asyncio.TaskGroup() as group:
            group.create_task(server.copies.send(CLIENT, order()))
            stream = await server.transport.accepted.get()
            await successor.copies.take(stream)
            stream.close()
        assert successor.holds(sent)


async def test_every_part_fits_what_a_server_accepts_on_a_stream_of_pages() -> None:
    limits = {}

    async def serve(protocol: str, _: object, *, limit: int, **__: object) -> None:
        limits[protocol] = limit

    async def export(*_: Any) -> list[Any]:
        return [page(2, 0, 50_000)[1]]

    async with serving() as server:
        server.transport.serve = serve  # type: ignore[attr-defined]
        await Serving(cast(Transport, server.transport), server.host).start()
        server.host.export = export  # type: ignore[method-assign, assignment]
        async with running(server.copies.send(CLIENT, order(2, 3))):
            stream = await server.transport.accepted.get()
            ends = [stream.bytes_in for _ in range(3) if await stream.read()]
        assert CHUNK_BYTES // 2 < ends[1] - ends[0] <= limits[PAGES] <= 5 << 20
        assert ends[2] - ends[0] > 50_000 * 96


async def test_blocks_of_a_session_are_copied_once_at_a_time() -> None:
    async with serving() as server:
        await server.open_with_pages()
        async with running(server.copies.send(CLIENT, order())):
            await server.transport.accepted.get()
            with pytest.raises(Refused, match="under way") as caught:
                await server.copies.send(CLIENT, order(3, 4))
            assert caught.value.code == "busy"


async def test_two_successors_may_take_different_blocks_of_a_session_together() -> None:
    async with serving() as server:
        await server.open_with_pages()
        orders = [server.copies.send(CLIENT, order(2, 3)), server.copies.send(CLIENT, order(3, 4))]
        async with running(*orders):
            for _ in range(2):
                await server.transport.accepted.get()


async def test_only_a_few_copies_leave_at_once_whatever_the_targets_do() -> None:
    async with serving(256) as server:
        sessions = [bytes([number] * 16) for number in range(MAX_COPIES_OUT + 2)]
        for session in sessions:
            await server.open_with_pages(session)
        async with running(*(server.copies.send(CLIENT, order(session=session)) for session in sessions)):
            deaf = [await server.transport.accepted.get() for _ in range(MAX_COPIES_OUT)]
            await asyncio.sleep(0.1)
            assert server.transport.accepted.empty()
            deaf[0].close()
            await server.transport.accepted.get()


@pytest.mark.parametrize("changes", [{"position": 0, "tag": 0}, {"start": 3, "end": 3}, {"tag": 8}], ids=str)
async def test_an_order_to_copy_what_is_not_there_is_refused(changes: dict[str, Any]) -> None:
    async with serving() as server:
        await server.open_with_pages()
        with pytest.raises(Refused):
            await server.copies.send(CLIENT, order(**changes))


async def test_a_successor_that_breaks_the_rules_is_reported_as_a_copy_that_failed() -> None:
    async with serving() as server:
        await server.open_with_pages()
        sending = asyncio.create_task(server.copies.send(CLIENT, order()))
        stream = await server.transport.accepted.get()
        stream.write_nowait(Ping(nonce=1))  # not a message of this kind of stream
        with pytest.raises(Refused, match="could not be copied"):
            await sending
        stream.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("rolled back"), "gap"),
        (KeyError("closed"), "gap"),
        (Overloaded("too many"), "busy"),
        (OSError("disk"), "internal"),
        (ArithmeticError("a mistake of ours"), "internal"),
    ],
    ids=lambda thing: type(thing).__name__,
)
async def test_an_order_that_fails_leaves_the_clients_control_stream_alone(
    error: Exception, code: str
) -> None:
    async with serving() as server:
        await server.open_with_pages()

        async def export(*_: Any) -> Any:
            raise error

        server.host.export = export  # type: ignore[method-assign, assignment]
        theirs, ours = await stream_pair(StreamRules(1 << 20, FROM_SERVER), StreamRules(1 << 20, FROM_CLIENT))
        connection = Connection(ours, server.host, server.copies.send)
        async with running(connection.serve()):
            await theirs.write(order())
            answers = [(await theirs.read()).message for _ in range(2)]
            assert [m.code for m in answers if isinstance(m, SessionError)] == [code]
            await theirs.write(Ping(nonce=5))
            assert getattr((await theirs.read()).message, "nonce", 0) == 5
        theirs.close()
        ours.close()
