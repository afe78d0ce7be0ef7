"""What a client may make a server hold, and what a burst of binds costs it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import torch

from server.buffers import Buffers
from server.driver import MAX_UNREAD_STEPS, SessionDriver
from server.executor import Executor
from server.host import Host
from server.kv_cache import KVPool
from server.replay_log import LogBudget
from server.rooms import Rooms
from server.serving import Serving
from server.session_effects import SessionKey
from server.sessions import HopSession, new_session
from server.tensor_payloads import TensorOperations
from swarm.allowance import Allowances
from swarm.background import running
from swarm.errors import PeerUnreachable
from swarm.streams import VAIN_STREAM_S, FrameStream, StreamRules
from swarm.transport import Transport
from swarm.wire.blocks import PeerId, SessionId
from swarm.wire.frames import FROM_CHAIN, MAX_CHAIN_FRAME_BYTES
from swarm.wire.messages import Bind, Credit, Hello, Message, NextHop, StateStep, Step, WantCredit
from tests.end_to_end.swarm import until
from tests.resumptions import Resumptions
from tests.server.page_servers import CLIENT, EVERYTHING, SESSION, Server, serving, stream_pair
from tests.server.test_executor import ALICE, BOB, SPAN, FakeRunner

STEP_BYTES = 8 * 4 * 4


class Bench:
    """Drivers around one fake runner; `dialled` has the epochs for which a successor was dialled."""

    def __init__(self, executor: Executor, pool: KVPool) -> None:
        self.rooms = Rooms(pool, executor)
        self.buffers = Buffers()
        self.buffers.accepted = Allowances(per_peer=2 * STEP_BYTES, in_all=100 * STEP_BYTES)
        self.dialled: list[int] = []
        self.told: list[Message] = []
        self.may_answer = asyncio.Event()

    def driver(self, client: PeerId, number: int = 0) -> SessionDriver:
        key = SessionKey(client, SessionId(bytes([number]) * 16))
        room = self.rooms.open(key, SPAN)
        session = new_session(key, SPAN, LogBudget(1 << 20, TensorOperations()), room)
        return SessionDriver(
            session, self.rooms, torch.float32, self.told.append, self._open_chain, self.buffers
        )

    async def _open_chain(self, next_hop: NextHop, hello: Hello) -> FrameStream:
        self.dialled.append(hello.epoch)
        await self.may_answer.wait()
        raise PeerUnreachable("nobody is there", PeerId(next_hop.peer))


@asynccontextmanager
async def bench(runner: FakeRunner) -> AsyncIterator[Bench]:
    pool = KVPool(64 * 16 * len(SPAN))
    async with Executor(runner, pool) as executor:
        try:
            yield Bench(executor, pool)
        finally:
            runner.gate.set()


def bind(driver: SessionDriver, epoch: int = 0, *, next_hop: NextHop | None = None) -> None:
    key = driver.session.key
    message = Bind(
        session=key.session,
        epoch=epoch,
        stage=0,
        start=SPAN.start,
        end=SPAN.end,
        num_stages=1 if next_hop is None else 2,
        fingerprint="f" * 64,
        previous=key.client,
        next=next_hop,
        commit=0,
        positions=b"",
        tags=b"",
    )
    driver.carry_out(driver.session.bind(message))


def feed(driver: SessionDriver, seq: int, epoch: int = 0, *, at: int | None = None) -> None:
    """Eight tokens, at the place of the step with that number, or with the number `at`."""
    driver.on_frame(step_at(seq, epoch, seq if at is None else at), torch.zeros(8, 4))


def step_at(seq: int, epoch: int = 0, at: int | None = None) -> Step:
    place = seq if at is None else at
    return Step(
        epoch=epoch,
        seq=seq,
        attempt=0,
        position=8 * place,
        num_tokens=8,
        base_tag=place,
        tag=place + 1,
        commit=0,
        rows=1,
    )


def state_at(place: int) -> StateStep:
    return StateStep(epoch=0, position=8 * place, num_tokens=8, base_tag=place, tag=place + 1, stop_stage=1)


async def is_waiting(task: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0.02)
    return not task.done()


async def test_steps_that_wait_are_bounded_over_all_sessions_of_a_client_and_no_other() -> None:
    runner = FakeRunner()
    runner.gate.clear()
    async with bench(runner) as it:
        busy, idle, other = it.driver(ALICE), it.driver(ALICE, 1), it.driver(BOB)
        async with running(*(driver.run_forever() for driver in (busy, idle, other))):
            for driver in (busy, idle, other):
                bind(driver)
            feed(busy, 0)
            async with asyncio.timeout(5):
                await idle.has_room_for_more()
            feed(busy, 1)
            waiting = [asyncio.create_task(busy.has_room_for_more())]
            async with asyncio.timeout(5):
                await idle.has_room_for_more()  # what decodes does not wait for what is read in
            for seq in (2, 3):
                feed(busy, seq)
            waiting.append(asyncio.create_task(idle.has_room_for_more()))
            for task in waiting:
                assert await is_waiting(task)
            async with asyncio.timeout(5):
                await other.has_room_for_more()
                runner.gate.set()
                await asyncio.gather(*waiting)
    assert it.buffers.accepted.held == 0


async def test_a_replay_is_computed_no_faster_than_the_successor_takes_it() -> None:
    runner = FakeRunner()
    async with bench(runner) as it:
        it.buffers.queued = Allowances(per_peer=1, in_all=1)
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver, next_hop=NextHop(peer=BOB))
            for place in range(2):
                driver.on_frame(state_at(place), torch.zeros(8, 4))
            waiting = asyncio.create_task(driver.wait_until_idle())
            await until(lambda: driver.session.counters.executed_tokens == 8, 5, "the first part is computed")
            assert await is_waiting(waiting)
            assert (runner.batches, it.told) == ([[(0, 8)]], [])
            bind(driver, epoch=1, next_hop=NextHop(peer=BOB))
            async with asyncio.timeout(5):
                await waiting


async def test_sending_again_what_another_hop_refuses_is_no_use_of_a_session() -> None:
    async with bench(FakeRunner()) as it:
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver)
            first_s = await used_after(driver, 0)
            assert await used_after(driver, 1, at=0) == first_s
            assert await used_after(driver, 2, at=1) > first_s


async def test_to_replay_what_was_dropped_is_use_of_a_session() -> None:
    async with bench(FakeRunner()) as it:
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver)
            first_s = await used_after(driver, 0)
            driver.session.drop_cache()
            it.rooms.empty(driver.session.key)
            assert await used_after(driver, 1, at=0) > first_s


async def used_after(driver: SessionDriver, seq: int, at: int | None = None) -> float:
    """When the session was used last, once a step is executed."""
    before = driver.session.counters.executed_tokens
    feed(driver, seq, at=at)
    async with asyncio.timeout(5):
        while driver.session.counters.executed_tokens == before:  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0.001)
    return driver.last_used_s


async def test_who_waits_for_its_own_steps_is_not_woken_by_those_of_others() -> None:
    runner, resumptions = FakeRunner(), Resumptions()
    runner.gate.clear()
    async with bench(runner) as it:
        it.buffers.accepted = Allowances(per_peer=1 << 30, in_all=1 << 30)
        full, other = it.driver(ALICE), it.driver(ALICE, 1)
        async with running(full.run_forever(), other.run_forever()):
            for driver in (full, other):
                bind(driver)
            for seq in range(MAX_UNREAD_STEPS + 1):
                feed(full, seq)
            waiting = asyncio.create_task(resumptions.watch(full.has_room_for_more()))
            await asyncio.sleep(0)
            for seq in range(30):
                feed(other, seq)
                await asyncio.sleep(0)
            assert resumptions.number == 0
            runner.gate.set()
            async with asyncio.timeout(5):
                await waiting


async def test_what_a_client_had_sent_before_it_hung_up_is_not_computed_and_its_stream_ends() -> None:
    async with serving() as server:
        await server.bind(commit=0)
        runner = server.runner
        runner.gate.clear()
        theirs, ours = await stream_pair(EVERYTHING, StreamRules(MAX_CHAIN_FRAME_BYTES, FROM_CHAIN))
        ours.remote_id = CLIENT
        chain = asyncio.create_task(Serving(cast(Transport, server.transport), server.host)._on_chain(ours))
        await theirs.write(Hello(client=CLIENT, session=SESSION, epoch=0, stage=0))
        for seq in range(9):
            await theirs.write(step_at(seq), [torch.zeros(8, 4)])
        await runner.hold()
        server.host.detach(server.ears)
        await theirs.write(step_at(9), [torch.zeros(8, 4)])
        async with asyncio.timeout(5):
            await chain
            runner.gate.set()
            while server.host.executor.queue_depth:  # noqa: ASYNC110 - nothing says so
                await asyncio.sleep(0.001)
        assert ours.loop_budget.owed_s() > VAIN_STREAM_S / 2, "it was welcome, and has come to nothing"
        assert runner.batches == [[(0, 8)]]
        assert server.host.buffers.accepted.held == 0
        theirs.close()


async def test_a_step_that_runs_for_a_client_that_hung_up_ends_with_its_batch() -> None:
    async with serving(pages_per_block=40) as server:
        driver, runner = await long_step(server), server.runner
        server.host.detach(server.ears)
        runner.gate.set()
        await idle(driver)
        assert len(runner.batches) == 1
        assert driver.session.position == 0


async def test_a_step_that_waits_behind_a_dial_is_not_computed_for_a_client_that_hung_up() -> None:
    runner = FakeRunner()
    async with bench(runner) as it:
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver, next_hop=NextHop(PeerId("1nobody")))
            await asyncio.sleep(0)
            feed(driver, 0)
            driver.session.let_go()
            driver.let_go()
            it.may_answer.set()
            await idle(driver)
    assert runner.batches == []


async def test_what_an_older_epoch_has_left_running_ends_with_its_batch() -> None:
    async with serving(pages_per_block=40) as server:
        driver, runner = await long_step(server), server.runner
        await server.bind(commit=0, epoch=1)
        runner.gate.set()
        await idle(driver)
        assert len(runner.batches) == 1


async def long_step(server: Server) -> SessionDriver:
    """A session with a step of several batches, the first of which the runner holds."""
    await server.bind(commit=0)
    server.runner.gate.clear()
    driver = await server.host.admit(CLIENT, Hello(client=CLIENT, session=SESSION, epoch=0, stage=0))
    assert await granted(server.host, driver.session.key, 600)
    driver.on_frame(msgspec.structs.replace(step_at(0), num_tokens=600), torch.zeros(600, 4))
    await server.runner.hold()
    return driver


async def idle(driver: SessionDriver) -> None:
    async with asyncio.timeout(5):
        while not driver.session.is_idle:  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0.001)


async def test_a_stream_of_a_session_that_is_closed_ends_and_holds_nothing() -> None:
    async with serving() as server:
        await server.bind(commit=0)
        theirs, ours = await stream_pair(EVERYTHING, StreamRules(MAX_CHAIN_FRAME_BYTES, FROM_CHAIN))
        ours.remote_id = CLIENT
        chain = asyncio.create_task(Serving(cast(Transport, server.transport), server.host)._on_chain(ours))
        await theirs.write(Hello(client=CLIENT, session=SESSION, epoch=0, stage=0))
        await asyncio.sleep(0.01)
        server.host.close(CLIENT, SessionId(SESSION))
        async with asyncio.timeout(5):
            for seq in itertools.count():
                if chain.done():
                    break
                await theirs.write(step_at(seq, at=0), [torch.zeros(8, 4)])
                await asyncio.sleep(0.001)
        await chain
        theirs.close()


async def test_a_session_that_ends_gives_its_bytes_back() -> None:
    runner = FakeRunner()
    runner.gate.clear()
    async with bench(runner) as it:
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver)
            feed(driver, 0)
            feed(driver, 1)
            await asyncio.sleep(0)
            assert it.buffers.accepted.held == 2 * STEP_BYTES
        assert it.buffers.accepted.held == 0
        async with asyncio.timeout(5):
            await driver.has_room_for_more()


async def test_of_many_binds_only_the_newest_is_dialled() -> None:
    async with bench(FakeRunner()) as it:
        driver = it.driver(ALICE)
        nowhere = NextHop(PeerId("1nobody"))
        async with running(driver.run_forever()):
            bind(driver, 0, next_hop=nowhere)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for epoch in range(1, 1000):
                bind(driver, epoch, next_hop=nowhere)
            it.may_answer.set()
            async with asyncio.timeout(5):
                while len(it.told) < 1:  # noqa: ASYNC110 - the answer to the last bind
                    await asyncio.sleep(0)
    assert it.dialled[-1] == 999
    assert len(it.dialled) <= 2


async def test_a_session_may_be_closed_while_its_successor_is_dialled() -> None:
    async with bench(FakeRunner()) as it:
        driver = it.driver(ALICE)
        async with running(driver.run_forever()):
            bind(driver, next_hop=NextHop(PeerId("1nobody")))
            it.rooms.close(driver.session.key)
            it.may_answer.set()
            async with asyncio.timeout(5):
                while not it.told:  # noqa: ASYNC110 - whatever it says now, nobody hears it
                    await asyncio.sleep(0)


async def test_room_that_a_rollback_left_goes_to_whoever_needs_it() -> None:
    async with serving(pages_per_block=40) as server:
        pages = await server.open_with_pages()
        key = SessionKey(PeerId("CLient"), SessionId(SESSION))
        assert await granted(server.host, key, 600)
        await server.bind(session=b"b" * 16)
        assert await granted(server.host, SessionKey(key.client, SessionId(b"b" * 16)), 300)
        assert server.holds(pages), "what is cached stays"
        session = server.host.table.get(key)
        assert isinstance(session, HopSession)
        assert session.credit < 600


async def granted(host: Host, key: SessionKey, position: int) -> bool:
    want = WantCredit(session=key.session, epoch=0, slot=0, position=position, wait_ms=900, attempt=0)
    return isinstance(await host.grant(key.client, want), Credit)
