"""The bot without any platform: takes events in, queues turns, runs them, takes up what a crash has left.

Adapters give it what happened (`receive`) and a port to answer through; all between is the same for all.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from bot.bookkeeping import Books, Wishes
from bot.brain import Brain
from bot.clock import Clock
from bot.commands.desk import CommandDesk
from bot.commands.handlers import Obey
from bot.outbound import Outbound
from bot.reception import TOO_OLD_MS, Desk, Reception
from bot.turn_queue import Bounds, Entry, TurnQueue
from bot.turn_run import Gate
from bot.turns import TurnRunner
from storage.amounts import DAY_MS, Rates
from storage.database import Database, Transaction
from storage.errors import StorageError, StoreBusy
from storage.inbox import Event, Waiting, purge_inbox, receive, waiting
from storage.ledger import settle, settle_dead, settle_expired
from storage.privacy import purge_transcripts
from storage.rate import Rate, TokenBuckets
from storage.transcript import Said, end, get_turn, open_turns, requeue, undelivered_turns
from swarm.background import RunningGroup, running, running_group

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
CUT_OFF_S = 5.0
KEEP_EVENTS_MS = 7 * DAY_MS
MOST_TAKEN = 32
TAKE_AGAIN_S = 1.0
TAKE_TRIES = 60


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator has set for the core."""

    rates: Rates = field(default_factory=Rates)
    bounds: Bounds = field(default_factory=Bounds)
    rate: Rate = field(default_factory=lambda: Rate(burst=5, interval_ms=6000))
    wishes: Wishes = field(default_factory=Wishes)
    place_notice: str = ""
    """Said in each place once, before what was written there leaves for the swarm; "" says nothing."""
    retention_days: int = 30
    person_notice: str = ""
    """Said once below the first answer that somebody gets."""


class Core:
    """The running bot. See `open_core`."""

    def __init__(
        self,
        desk: Desk,
        books: Books,
        brain: Brain,
        ports: Mapping[str, Outbound],
        rules: Rules,
        group: RunningGroup,
    ) -> None:
        self._desk = desk
        self._ports = ports
        self._group = group
        self._queue = TurnQueue(rules.bounds)
        self._gates: dict[str, Gate] = {}
        self._is_draining = False
        self._changed = asyncio.Event()
        self._takers = asyncio.Semaphore(MOST_TAKEN)
        self._num_taking = 0
        self._delivering: set[str] = set()
        self._keep_ms = rules.retention_days * DAY_MS
        self._runner = TurnRunner(books, brain, ports, desk.clock)
        commands = CommandDesk(desk, books, brain, ports, self._queue, self.stop, self.enqueue)
        self._reception = Reception(desk, Obey(commands), self.enqueue, self._runner)

    @property
    def num_busy(self) -> int:
        """Events that are being dealt with, turns that run or wait, and answers of before that are shown."""
        return self._num_taking + len(self._delivering) + len(self._gates)

    async def settle(self) -> None:
        """Wait until there is nothing to do. Something may come at any time."""
        while self.num_busy:
            self._changed.clear()
            await self._changed.wait()

    def stop_all(self) -> bool:
        """End every answer that is being written or waits; False if there is none."""
        for turn_id in self._gates:
            self.stop(turn_id)
        return bool(self._gates)

    def stop(self, turn_id: str) -> None:
        """End a turn, wherever it is: waiting, opening its session, or being written."""
        if turn_id in self._gates:
            self._gates[turn_id].is_stopped = True
            self._runner.stop(turn_id)

    async def drain(self, within_s: float) -> None:
        """Begin nothing new: what comes is kept for the next start. What runs may end, or is cut off."""
        self._is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.settle()
            return
        self.stop_all()
        with suppress(TimeoutError):
            async with asyncio.timeout(CUT_OFF_S):
                await self.settle()

    async def receive(
        self, platform: str, events: Sequence[Event], markers: Mapping[str, str] | None = None
    ) -> None:
        """Keep what a platform has told us, and how far we have read it; then deal with it.

        When this returns it is kept, and will be dealt with even if we die. Raises StoreBusy, StoreUnusable.
        """
        new = await self._desk.store.write(
            receive, platform, events, self._desk.clock.now_ms(), markers or {}
        )
        if not self._is_draining:
            self._begin_taking(platform, new)

    async def enqueue(self, said: Said, *, must_wait: bool = False) -> str:
        """Let a queued turn run when it may; returns what the queue says."""
        question = said.question
        entry = Entry(question.turn_id, question.conversation_id, question.account_id)
        outcome = self._queue.offer(entry, must_wait=must_wait)
        if outcome in ("runs", "waits"):
            gate = Gate(lambda: self._queue.num_ahead(question.turn_id))
            self._gates[question.turn_id] = gate
            if outcome == "runs":
                gate.opened.set()
            self._group.create_task(self._run(said, gate))
        return outcome

    async def recover(self, boot: str) -> None:
        """Take up what was left when the process before us ended, whatever it was doing."""
        now_ms = self._desk.clock.now_ms()
        await self._desk.store.write(settle_dead, boot, now_ms)
        for said in await self._desk.store.read(open_turns):
            await self._take_up(said, now_ms)
        await self._deliver_again()
        for platform in self._ports:
            self._begin_taking(platform, await self._desk.store.read(waiting, platform))

    async def sweep_forever(self) -> None:
        """Settle holds that have not been heard of, show what could not be shown, forget what is old."""
        while True:
            await self._desk.clock.sleep(SWEEP_S)
            try:
                await self._sweep(self._desk.clock.now_ms())
            except StorageError as error:
                logger.warning("the store could not be swept: %s", error)

    async def _sweep(self, now_ms: int) -> None:
        late = await self._desk.store.write(settle_expired, now_ms)
        if late:
            logger.warning("%d turns were settled because they were not heard of", len(late))
        await self._desk.store.write(purge_inbox, now_ms - KEEP_EVENTS_MS)
        await self._desk.store.write(purge_transcripts, now_ms - self._keep_ms)
        await self._deliver_again()

    async def _deliver_again(self) -> None:
        """Show answers that have ended and were not seen to be shown."""
        for said in await self._desk.store.read(undelivered_turns):
            turn_id = said.question.turn_id
            if turn_id not in self._gates and turn_id not in self._delivering:
                self._delivering.add(turn_id)
                self._group.create_task(self._deliver(said))

    def _begin_taking(self, platform: str, events: Sequence[Waiting]) -> None:
        for event in events:
            self._num_taking += 1
            self._group.create_task(self._take(platform, event))

    async def _take_patiently(self, platform: str, event: Waiting) -> None:
        """Deal with an event; again, if the store has no time for it."""
        for _ in range(TAKE_TRIES):
            try:
                return await self._reception.take(event, self._ports[platform])
            except StoreBusy:
                await self._desk.clock.sleep(TAKE_AGAIN_S)
        return await self._reception.take(event, self._ports[platform])

    async def _take(self, platform: str, event: Waiting) -> None:
        try:
            async with self._takers:
                await self._take_patiently(platform, event)
        except Exception:
            logger.exception("event %s was given up", event.event.event_id)
        finally:
            self._num_taking -= 1
            self._changed.set()

    async def _take_up(self, said: Said, now_ms: int) -> None:
        """Go on with a turn that had not ended: from its start, if nothing of it was to be seen."""
        turn_id = said.question.turn_id
        is_fresh = now_ms - said.asked_ms <= TOO_OLD_MS
        waits = said.state == "queued" or await self._desk.store.write(requeue, turn_id)
        if is_fresh and waits:
            again = await self._desk.store.read(get_turn, turn_id)
            if again is not None:
                await self.enqueue(again, must_wait=True)
            return
        await self._desk.store.write(end, turn_id, "interrupted", now_ms)

    async def _deliver(self, said: Said) -> None:
        try:
            await self._runner.deliver(said)
        except Exception:
            logger.exception("turn %s cannot be shown", said.question.turn_id)
        finally:
            self._delivering.discard(said.question.turn_id)
            self._changed.set()

    async def _run(self, said: Said, gate: Gate) -> None:
        turn_id = said.question.turn_id
        try:
            async with running(self._mark(said, gate)):
                await self._runner.run(said, gate)
            if not gate.opened.is_set():  # stopped while it waited
                await self._acknowledge(said, "")
        except Exception:
            logger.exception("turn %s was given up", turn_id)
            await self._give_up(turn_id)
        finally:
            del self._gates[turn_id]
            self._changed.set()
            for next_id in self._queue.leave(turn_id):
                self._gates[next_id].opened.set()

    async def _give_up(self, turn_id: str) -> None:
        """End a turn that nothing can be done for; the sweep tells its reader."""
        try:
            await self._desk.store.write(_fail, turn_id, self._desk.clock.now_ms())
        except StorageError as error:
            logger.warning("turn %s stays open: %s", turn_id, error)

    async def _mark(self, said: Said, gate: Gate) -> None:
        """Show that a message was seen, or that it waits, as long as it does."""
        if gate.opened.is_set():
            await self._acknowledge(said, "seen")
            return
        await self._acknowledge(said, "queued")
        await gate.opened.wait()
        await self._acknowledge(said, "")

    async def _acknowledge(self, said: Said, mark: Literal["seen", "queued", ""]) -> None:
        origin = self._runner.origin_of(said)
        try:
            await self._ports[origin.where.platform].acknowledge(origin.where, origin.event_id, mark)
        except Exception as error:  # noqa: BLE001 - a mark is worth no answer
            logger.info("turn %s is not marked: %s", said.question.turn_id, error)


def _fail(connection: Transaction, turn_id: str, now_ms: int) -> None:
    settle(connection, turn_id, 0, now_ms)
    end(connection, turn_id, "failed", now_ms)


@asynccontextmanager
async def open_core(
    desk: Desk, brain: Brain, ports: Mapping[str, Outbound], *, boot: str, rules: Rules
) -> AsyncIterator[Core]:
    """The core, for the length of the block; turns that run when it ends are cut off where they are.

    `boot` names this process' run: holds under other names are those of the dead.
    """
    books = Books(desk.store, desk.clock, rules.rates, boot, rules.wishes, rules.person_notice)
    async with running_group() as group:
        core = Core(desk, books, brain, ports, rules, group)
        await core.recover(boot)
        group.create_task(core.sweep_forever())
        yield core


def open_desk(store: Database, clock: Clock, hash_key: bytes, rules: Rules) -> Desk:
    """Where people are received, under these rules."""
    return Desk(store, clock, rules.rates, hash_key, TokenBuckets(rules.rate), rules.place_notice)
