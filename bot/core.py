"""The bot without any platform: takes events in, queues turns, runs them, takes up what a crash has left.

Adapters give it what happened (`receive`) and a port to answer through; all between is the same for all.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from structlog.contextvars import bound_contextvars

from bot.brain import Brain
from bot.commands.desk import CommandDesk
from bot.commands.handlers import Obey
from bot.measures import Measures
from bot.open_desk import open_desk
from bot.receiving.marks import Marks
from bot.receiving.reception import TOO_OLD_MS, Desk, Reception
from bot.receiving.taking import Taking
from bot.receiving.withdrawing import Withdrawal
from bot.rules import Rules
from bot.sending.outbound import Outbound
from bot.sweeping import SWEEP_S, sweep
from bot.turns.bookkeeping import Books
from bot.turns.queue import Entry, TurnQueue
from bot.turns.recovery import fail, take_stock
from bot.turns.run import Gate
from bot.turns.runner import TurnRunner
from storage.errors import StorageError
from storage.inbox import Event, Waiting, receive, waiting
from storage.transcript import Said, get_turn, open_turns, undelivered_turns
from swarm.background import RunningGroup, running, running_group

__all__ = ["Core", "Rules", "open_core", "open_desk"]

logger = logging.getLogger(__name__)

CUT_OFF_S = 5.0


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
        self._taking = Taking(group, desk.clock, self._take, self._changed.set)
        self._delivering: set[str] = set()
        self._marks = Marks(ports)
        self._retention_days = rules.retention_days
        self._runner = TurnRunner(books, brain, ports, desk.clock, rules.turn)
        self.must_leave = asyncio.Event()
        """An admin wants the bot to end its work."""
        self.commands = CommandDesk(
            desk,
            books,
            brain,
            ports,
            self._queue,
            self.stop,
            self.enqueue,
            self.must_leave.set,
            take_up_kept=self.take_up_kept,
            end_turns_of=self.end_turns_of,
        )
        withdraw = Withdrawal(desk.store, brain, desk.clock, self.withdraw)
        self._reception = Reception(desk, Obey(self.commands), self.enqueue, self._runner, withdraw)

    @property
    def num_busy(self) -> int:
        """Events that are being dealt with, turns that run or wait, and answers of before that are shown."""
        return self._taking.num + len(self._delivering) + len(self._gates)

    @property
    def num_waiting(self) -> int:
        """Turns that wait."""
        return sum(not gate.opened.is_set() for gate in self._gates.values())

    @property
    def num_running(self) -> int:
        """Turns that run."""
        return len(self._gates) - self.num_waiting

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

    async def withdraw(self, turn_id: str) -> None:
        """End a turn, show no more of it, and wait until nothing of it is done any more."""
        if turn_id in self._gates:
            self._gates[turn_id].is_withdrawn = True
        await self._ended(turn_id)

    async def end_turns_of(self, account_id: int) -> None:
        """End a person's turns, and wait until they are shown and nothing of them is done any more."""
        for turn_id in {*self._gates, *self._delivering}:
            said = await self._desk.store.read(get_turn, turn_id)
            if said is not None and said.question.account_id == account_id:
                await self._ended(turn_id)

    async def leave_place(self, platform: str, place: str) -> None:
        """A place is there no more: what is written for it ends. Nothing is waited for."""
        for said in await self._desk.store.read(open_turns):
            where = self._runner.origin_of(said).where
            if (where.platform, where.place) == (platform, place):
                self.stop(said.question.turn_id)

    async def _ended(self, turn_id: str) -> None:
        while turn_id in self._gates or turn_id in self._delivering:
            self.stop(turn_id)
            self._changed.clear()
            await self._changed.wait()

    async def drain(self, within_s: float) -> None:
        """Begin nothing new: what comes and what waits is kept for the next start. What runs may end.

        What has not ended in time is left as by a crash: cut off, or not begun if it has shown nothing.
        """
        self._is_draining = True
        self._leave([turn_id for turn_id, gate in self._gates.items() if not gate.opened.is_set()])
        await self._settled(within_s)
        self._leave([*self._gates])
        await self._settled(CUT_OFF_S)

    async def _settled(self, within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.settle()

    def _leave(self, turn_ids: Iterable[str]) -> None:
        for turn_id in turn_ids:
            self._gates[turn_id].is_left = True
            self._runner.stop(turn_id)

    async def receive(
        self, platform: str, events: Sequence[Event], markers: Mapping[str, str] | None = None
    ) -> None:
        """Keep what a platform has told us, and how far we have read it; then deal with it.

        When this returns it is kept, and will be dealt with even if we die. Raises StoreBusy, StoreUnusable.
        """
        desk = self._desk
        new = await desk.store.write(receive, platform, events, desk.clock.now_ms(), markers or {})
        self.hear(platform)
        if not self._is_draining:
            self._taking.begin(platform, new)

    def hear(self, platform: str) -> None:  # though it may have nothing to say
        self._desk.listening.hear(platform, self._desk.clock.now_s())

    async def enqueue(self, said: Said, *, must_wait: bool = False) -> str:
        """Let a queued turn run when it may; returns what the queue says. When we stop, it waits."""
        question = said.question
        if self._is_draining:
            return "waits"
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

        def is_wanted(said: Said) -> bool:
            return now_ms - said.asked_ms <= TOO_OLD_MS and self._is_reachable(said)

        for said in await take_stock(self._desk.store, boot, now_ms, is_wanted):
            await self.enqueue(said, must_wait=True)
        await self._deliver_again()
        for platform in self._ports:
            self._taking.begin(platform, await self._desk.store.read(waiting, platform))

    async def take_up_kept(self, platform: str, sender: str) -> int:
        """Deal with what somebody has said before they agreed; returns how many messages that are."""
        kept = await self._desk.consent.kept(platform, sender)
        self._taking.begin(platform, kept)
        return len(kept)

    async def sweep_forever(self) -> None:
        """Settle holds that have not been heard of, show what could not be shown, forget what is old."""
        while True:
            await self._desk.clock.sleep(SWEEP_S)
            try:
                await sweep(self._desk, self._ports, self._retention_days, self._is_cared_for)
                await self._deliver_again()
            except StorageError as error:
                logger.warning("the store could not be swept: %s", error)

    async def _deliver_again(self) -> None:
        """Show answers that have ended and were not seen to be shown."""
        for said in await self._desk.store.read(undelivered_turns):
            turn_id = said.question.turn_id
            is_at_work = turn_id in self._gates or turn_id in self._delivering
            if not is_at_work and self._is_reachable(said):
                self._delivering.add(turn_id)
                self._group.create_task(self._deliver(said))

    def _is_reachable(self, said: Said) -> bool:
        """The platform on which a turn was asked for is enabled."""
        return self._runner.origin_of(said).where.platform in self._ports

    def _is_cared_for(self, turn_id: str) -> bool:
        """Somebody runs a turn, or it waits for the next start."""
        return self._is_draining or turn_id in self._gates

    async def _take(self, platform: str, event: Waiting) -> None:
        await self._reception.take(event, self._ports[platform])

    async def _deliver(self, said: Said) -> None:
        try:
            await self._runner.deliver(said)
        except Exception:  # it costs this answer, and not the bot all others
            logger.exception("turn %s cannot be shown", said.question.turn_id)
        finally:
            self._delivering.discard(said.question.turn_id)
            self._changed.set()

    async def _run(self, said: Said, gate: Gate) -> None:
        turn_id = said.question.turn_id
        try:
            conversation, origin = said.question.conversation_id, self._runner.origin_of(said)
            with bound_contextvars(turn=turn_id, platform=origin.where.platform, conversation=conversation):
                async with running(self._marks.follow(origin, gate)):
                    await self._runner.run(said, gate)
            if not gate.opened.is_set():  # stopped or left while it waited
                await self._marks.put(origin, "")
        except Exception:  # the turn must end, and what waits behind it come to its time
            logger.exception("turn %s was given up", turn_id)
            await self._give_up(turn_id)
        finally:
            del self._gates[turn_id]
            self._changed.set()
            for next_id in self._queue.leave(turn_id):
                if not self._is_draining:
                    self._gates[next_id].opened.set()

    async def _give_up(self, turn_id: str) -> None:
        """End a turn that nothing can be done for; the sweep tells its reader."""
        try:
            await self._desk.store.write(fail, turn_id, self._desk.clock.now_ms())
        except StorageError as error:
            logger.warning("turn %s stays open: %s", turn_id, error)


@asynccontextmanager
async def open_core(
    desk: Desk,
    brain: Brain,
    ports: Mapping[str, Outbound],
    *,
    boot: str,
    rules: Rules,
    measures: Measures | None = None,
) -> AsyncIterator[Core]:
    """The core, for the length of the block; turns that run when it ends are cut off where they are.

    `boot` names this process' run: holds under other names are those of the dead.
    """
    books = Books(desk.store, desk.clock, rules.rates, boot, rules.wishes, rules.person_notice)
    books.measures = measures or books.measures
    async with running_group() as group:
        core = Core(desk, books, brain, ports, rules, group)
        await desk.access.load(desk.store)
        await core.recover(boot)
        group.create_task(core.sweep_forever())
        yield core
