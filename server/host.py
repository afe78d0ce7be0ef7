"""A block server's sessions at work: the table, the pool, the executor, and a driver for each session."""

import asyncio
import functools
import logging
import time
from dataclasses import dataclass
from typing import Protocol, cast
from weakref import WeakValueDictionary

import torch

from server.buffers import Buffers
from server.driver import OpenChain, SessionDriver
from server.executor import Executor
from server.kv_cache import KVFull, KVLost, KVPool
from server.kv_extents import Pair
from server.making_room import make_room_forever
from server.replay_log import LogBudget
from server.resources import give_back_memory
from server.rooms import Rooms
from server.session_effects import SessionKey
from server.session_table import Limits, Refused, SessionTable
from server.tensor_payloads import TensorOperations
from swarm.wire.blocks import PeerId, SessionId, Span
from swarm.wire.messages import (
    Bind,
    Credit,
    Heartbeat,
    Hello,
    Message,
    SessionError,
    SessionProgress,
    StartReplay,
    WantCredit,
)

logger = logging.getLogger(__name__)

TICK_S = 0.25
TIDY_S = 2.0
HELD_HELLO_S = 2.0
MAX_GRANT_S = 10.0
MAX_HEARTBEAT_SESSIONS = 4096


@dataclass(frozen=True, slots=True)
class HostedModel:
    """What this server runs."""

    span: Span
    fingerprint: str
    hidden_size: int
    dtype: torch.dtype
    kv_layout: tuple[Pair, ...] = ()
    """Keys and values of one token in each block of `span`: what copied pages must look like."""


class Holder(Protocol):
    """A control connection, as the host sees it: somebody who speaks for sessions and can be told things."""

    def send(self, message: Message) -> None:
        """Tell the client."""


class Host:
    """All sessions of this server. Control and chain streams call it; it never waits for a peer."""

    def __init__(
        self, model: HostedModel, pool: KVPool, executor: Executor, open_chain: OpenChain, log_bytes: int
    ) -> None:
        self.model = model
        self.rooms = Rooms(pool, executor)
        self.executor = executor
        self.buffers = Buffers()
        self.table = SessionTable(
            model.span, model.fingerprint, self.rooms, LogBudget(log_bytes, TensorOperations()), Limits()
        )
        self._open_chain = open_chain
        self._drivers: dict[SessionKey, SessionDriver] = {}
        self._tasks: dict[SessionKey, asyncio.Task[None]] = {}
        self._tidied_s = 0.0
        self._awaited: WeakValueDictionary[SessionKey, asyncio.Event] = WeakValueDictionary()
        self._group: asyncio.TaskGroup | None = None

    async def run_forever(self) -> None:
        """Drive sessions, end leases, make room. Ends with its caller."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(make_room_forever(self.table, self.rooms, self._drivers))
            while True:
                await asyncio.sleep(TICK_S)
                self.table.expire(time.monotonic())
                await self._sweep()
                await self._tidy(time.monotonic())

    async def _sweep(self) -> None:
        """End the drivers of sessions that are gone and give their pages back."""
        for key in [key for key in self._drivers if self.table.get(key) is not self._drivers[key].session]:
            self._drivers.pop(key).end()
            self._tasks.pop(key).cancel()
        await self.rooms.bury()

    async def _tidy(self, now_s: float) -> None:
        """In a quiet moment, let the system have the memory of sessions that were closed or put aside."""
        is_quiet = not self.executor.queue_depth and now_s - self._tidied_s >= TIDY_S
        if is_quiet and self.rooms.has_freed_memory:
            self.rooms.has_freed_memory, self._tidied_s = False, now_s
            await self.executor.call(give_back_memory)

    def _driver_of(self, key: SessionKey) -> SessionDriver:
        """The driver of an open session, started if need be."""
        session = self.table.get(key)
        assert session is not None, "drivers are for open sessions"
        assert self._group is not None, "the host does not run"
        driver = self._drivers.get(key)
        if driver is None or driver.session is not session:
            if driver is not None:
                driver.end()
                self._tasks.pop(key).cancel()
            tell = functools.partial(self._tell, key)
            driver = SessionDriver(
                session, self.rooms, self.model.dtype, tell, self._open_chain, self.buffers
            )
            self._drivers[key] = driver
            self._tasks[key] = self._group.create_task(self._drive(driver))
        return driver

    async def _drive(self, driver: SessionDriver) -> None:
        """Run a driver; a mistake of ours ends its session, not the server."""
        try:
            await driver.run_forever()
        except Exception:
            logger.exception("a session failed and is closed")
            self.table.close(driver.session.key.client, driver.session.key.session)

    def _tell(self, key: SessionKey, message: Message) -> None:
        holder = cast(Holder | None, self.table.holder(key))
        if holder is not None:
            holder.send(message)

    @property
    def num_attached(self) -> int:
        """Sessions for which a client is connected."""
        return sum(self.table.holder(session.key) is not None for session in self.table.sessions())

    async def wait_until_left(self, within_s: float) -> None:
        """Wait until no client is connected to a session any more, or `within_s` are over."""
        deadline = time.monotonic() + within_s
        while self.num_attached and time.monotonic() < deadline:  # noqa: ASYNC110 - leases end by the clock too
            await asyncio.sleep(TICK_S / 2)

    # --- control -------------------------------------------------------------------------------------

    def bind(self, client: PeerId, bind: Bind, holder: Holder) -> None:
        """Open, fork or re-bind a session. Raises Refused."""
        key = SessionKey(client, SessionId(bind.session), bind.slot)
        before = cast(Holder | None, self.table.holder(key))
        _, effects = self.table.bind(client, bind, holder, time.monotonic())
        if before is not None and before is not holder:
            fenced = SessionError(session=bind.session, epoch=bind.epoch, code="fenced", stage=bind.stage)
            before.send(fenced)
        self.executor.forget({self.rooms.cache(key)})  # what an older epoch has left there
        self._driver_of(key).carry_out(effects)
        if (bound := self._awaited.pop(key, None)) is not None:
            bound.set()

    def replay(self, client: PeerId, order: StartReplay) -> None:
        """Feed a lost successor from the log. Raises Refused."""
        key = SessionKey(client, SessionId(order.session), order.slot)
        session = self.table.find(key, time.monotonic())
        driver = self._driver_of(key)
        if driver.is_replaying_out:
            raise Refused("busy", "another replay of this session is under way", 1000)
        driver.carry_out(session.replay(order))

    async def grant(self, client: PeerId, want: WantCredit) -> Message | None:
        """Wait for room up to `want.position`, at most `want.wait_ms`. Raises Refused."""
        key = SessionKey(client, SessionId(want.session), want.slot)
        deadline = time.monotonic() + min(want.wait_ms / 1000, MAX_GRANT_S)
        while True:
            session = self.table.find(key, time.monotonic())
            if session.epoch != want.epoch:
                return None
            credit = session.credit = max(session.credit, session.room(want.position))
            if credit >= want.position:
                return Credit(session=want.session, epoch=want.epoch, stage=session.stage, position=credit)
            if time.monotonic() >= deadline:
                return _busy(want, session.stage, session.position)
            await self._wait_for_room(deadline)

    async def _wait_for_room(self, deadline: float) -> None:
        self.rooms.freed.clear()
        try:
            async with asyncio.timeout(min(TICK_S, deadline - time.monotonic())):
                await self.rooms.freed.wait()
        except TimeoutError:
            return

    def close(self, client: PeerId, session: SessionId) -> None:
        """Free a session now."""
        self.table.close(client, session)

    def detach(self, holder: Holder, session: SessionId | None = None) -> None:
        """A control connection ended, or let go of one session."""
        let_go = self.table.detach(holder, time.monotonic(), session)
        self.executor.forget({self.rooms.cache(gone.key) for gone in let_go})
        for gone in let_go:
            if (driver := self._drivers.get(gone.key)) is not None:
                driver.let_go()

    def heartbeat(self, holder: Holder, nonce: int = 0) -> Heartbeat:
        """How we are, and the sessions for which this connection speaks."""
        sessions = tuple(
            SessionProgress(
                s.key.session, s.epoch, s.stage, s.executed_seq, s.credit, s.num_in_hand, s.position
            )
            for s in self.table.held_by(holder)
        )
        return Heartbeat(
            nonce=nonce,
            progress=self.executor.progress,
            queue_depth=self.executor.queue_depth,
            free_tokens=self.rooms.pool.free_tokens(len(self.model.span)),
            sessions=sessions[:MAX_HEARTBEAT_SESSIONS],
        )

    # --- chain -----------------------------------------------------------------------------------------

    async def admit(self, remote: PeerId, hello: Hello, *, is_copy: bool = False) -> SessionDriver:
        """Wait for the bind that a stream belongs to, a little while. Raises Refused."""
        key = SessionKey(PeerId(hello.client), SessionId(hello.session), hello.slot)
        deadline = time.monotonic() + HELD_HELLO_S
        while True:
            now = time.monotonic()
            session = self.table.admit(remote, hello, now, is_copy=is_copy)
            if session is not None:
                return self._driver_of(session.key)
            if now >= deadline:
                raise Refused("unknown_session", "no bind came for this stream")
            await _wait_until(self._awaited.setdefault(key, asyncio.Event()), deadline - now)

    # --- pages -----------------------------------------------------------------------------------------

    async def export(self, key: SessionKey, span: Span, position: int, tag: int) -> list[Pair]:
        """Copies of a session's pages for `span`, up to `position`. Raises Refused if they are not there."""
        session = self.table.find(key, time.monotonic())
        if not session.span.contains(span) or not session.can_fork(position, tag):
            raise Refused("gap", "this session does not hold what is to be copied")
        try:
            if not await self.rooms.wake(key):
                raise Refused("busy", "no room to bring the session back")
        except KVLost as error:
            if session.is_idle:
                session.drop_cache()
            raise Refused("gap", str(error)) from error
        cache = self.rooms.cache(key)
        pairs = await self.executor.call(functools.partial(self.rooms.pool.export_pages, cache, position))
        first = span.start - session.span.start
        return pairs[first : first + len(span)]

    async def adopt(self, driver: SessionDriver, epoch: int, pairs: list[Pair]) -> None:
        """Let a session go on from pages that were copied to it. Raises Refused if they do not fit."""
        if not driver.session.can_adopt(epoch):
            raise Refused("gap", "this session does not wait for pages now")
        cache = self.rooms.cache(driver.session.key)
        first = driver.session.span.start - self.model.span.start
        like = self.model.kv_layout[first : first + len(driver.session.span)]
        work = functools.partial(self.rooms.pool.import_pages, cache, pairs, like=like)
        try:
            await self.executor.call(work)
        except (KVFull, ValueError) as error:
            raise Refused("busy", f"the pages do not fit: {error}") from error
        driver.carry_out(driver.session.adopt(epoch))


async def _wait_until(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return


def _busy(want: WantCredit, stage: int, position: int) -> SessionError:
    return SessionError(
        session=want.session,
        epoch=want.epoch,
        code="busy",
        message="no KV room came free in time",
        stage=stage,
        attempt=want.attempt,
        position=position,
        retry_after_ms=500,
    )
