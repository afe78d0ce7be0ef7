"""Carries out what one session's state machine asks: compute, connect to the successor, send, tell.

What can be done at once is done at once. Of the slow things one task computes, step after step, and another
links: to acknowledge a bind must not wait for a long batch that an older epoch has left behind.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

import torch

from server.buffers import Buffers
from server.executor import Executor
from server.kv_cache import KVFull, KVGone, KVLost
from server.overloaded import Overloaded
from server.rooms import Rooms
from server.session_effects import Effect, Execute, Link, SendNext, Tell
from server.sessions import HopSession
from server.work import Work
from swarm.background import running
from swarm.errors import ContextTooLong, PeerUnreachable
from swarm.outgoing import Outgoing
from swarm.streams import FrameStream
from swarm.wire.messages import Hello, Message, NextHop, StateStep, Step

logger = logging.getLogger(__name__)

LINK_S = 3.0
MAX_UNREAD_STEPS = 32


class OpenChain(Protocol):
    """How a driver reaches a successor."""

    async def __call__(self, next_hop: NextHop, hello: Hello) -> FrameStream:
        """Open a chain stream and greet. Raises PeerUnreachable."""


class SessionDriver:
    """One session on this server: its machine, and the streams and computations around it."""

    def __init__(
        self,
        session: HopSession,
        rooms: Rooms,
        dtype: torch.dtype,
        tell: Callable[[Message], None],
        open_chain: OpenChain,
        buffers: Buffers,
    ) -> None:
        client = session.key.client
        self.session = session
        self.outgoing = Outgoing(self._on_broken, buffers.queued.open(client))
        self.last_used_s = time.monotonic()
        """When it came further, or got room. To send again what another hop refuses is no use of this one."""
        self._has_got_room = False
        self.is_fetched = asyncio.Event()
        self._rooms = rooms
        self._executor: Executor = rooms.executor
        self._dtype = dtype
        self._tell = tell
        self._open_chain = open_chain
        self._accepted = buffers.accepted.open(client)
        self._to_link: Link | None = None
        self._to_run: Execute | None = None
        self._must_run = asyncio.Event()
        self._must_link = asyncio.Event()
        self._is_over = False
        self._has_come_further = asyncio.Event()
        self._is_replaying = False
        self._watch_epoch = asyncio.Event()
        self._successor: FrameStream | None = None

    async def run_forever(self) -> None:
        """Do the slow work of the session until it is closed."""
        try:
            async with running(self.outgoing.pump_forever(), self._watch_forever(), self._link_forever()):
                await self._compute_forever()
        finally:
            self.end()

    def carry_out(self, effects: list[Effect]) -> None:
        """Do, or put in line, what the machine asks for."""
        for effect in effects:
            if isinstance(effect, Tell):
                self._tell(effect.message)
            elif isinstance(effect, SendNext):
                self._send_next(effect)
            else:
                self._begin(effect)

    def on_frame(self, message: Step | StateStep, hidden: torch.Tensor) -> bool:
        """A step came along the chain; tells whether it brought something to compute."""
        num_useless = self.session.counters.num_useless
        self._is_replaying = isinstance(message, StateStep)
        if isinstance(message, Step):
            effects = self.session.on_step(message, hidden, is_blocked=self.outgoing.is_full)
        else:
            effects = self.session.on_state_step(message, hidden)
        self._count_accepted()
        self.carry_out(effects)
        return message.num_tokens > 0 and self.session.counters.num_useless == num_useless

    def let_go(self) -> None:
        """Nobody speaks for the session until it is bound anew, and what waited in it was dropped."""
        self._count_accepted()

    def end(self) -> None:
        """The session is closed: nothing more is taken or sent. Idempotent."""
        self._is_over = True
        self._count_accepted()
        self.outgoing.close()

    def is_over(self, epoch: int) -> bool:
        """Whether nobody waits any more for what the streams of `epoch` bring."""
        return self._is_over or epoch <= self.session.let_go_epoch

    def complain(self, epoch: int, reason: str) -> None:
        """What came along the chain broke the rules. Who sent it will not say so: we tell the client."""
        self.carry_out(self.session.spoiled(epoch, reason))

    @property
    def is_replaying_out(self) -> bool:
        """Whether parts of a replay wait for the successor: they are not counted, so one must do."""
        return self.outgoing.has_unmade

    async def has_room_for_more(self) -> None:
        """Wait until the client's sessions have worked off what they accepted: the sender is slowed down.

        A replay waits for the successor as well; a step is refused with `busy` instead.
        """
        while self._is_behind and not self._is_over:
            self._has_come_further.clear()
            await self._has_come_further.wait()
        while self._accepted.is_exhausted and not self._is_over:
            await self._accepted.wait_for_change()
        if self._is_replaying:
            await self.outgoing.wait_for_room()

    async def wait_until_idle(self) -> None:
        """Until nothing runs or waits: what an older epoch has left behind ends with its batch."""
        while not self.session.is_idle and not self._is_over:
            self._has_come_further.clear()
            await self._has_come_further.wait()

    @property
    def _is_behind(self) -> bool:
        return self.session.num_waiting >= MAX_UNREAD_STEPS

    def _count_accepted(self) -> None:
        sizes = (hidden.numel() * hidden.element_size() for hidden in self.session.accepted())
        self._accepted.note(0 if self._is_over else sum(sizes))
        self._has_come_further.set()

    # --- slow work -----------------------------------------------------------------------------------

    def _begin(self, job: Link | Execute) -> None:
        """Put a job in the place of an older one: of links only the newest counts, and one step runs."""
        if isinstance(job, Link):
            self._successor = None
            self.outgoing.begin(job.epoch)
            self._to_link = job
            self._count_accepted()
            self._must_link.set()
        else:
            self._to_run = job
            self._must_run.set()

    async def _compute_forever(self) -> None:
        while True:
            await self._must_run.wait()
            self._must_run.clear()
            if self._to_run is not None:
                job, self._to_run = self._to_run, None
                await self._compute(job)

    async def _link_forever(self) -> None:
        while True:
            await self._must_link.wait()
            self._must_link.clear()
            if self._to_link is not None:
                link, self._to_link = self._to_link, None
                await self._link(link)

    async def _compute(self, job: Execute) -> None:
        try:
            output = await self._executed(job)
        except (KVFull, Overloaded) as error:
            effects = self.session.failed("busy", str(error))
        except KVGone as error:
            effects = self.session.forgotten(is_lost=isinstance(error, KVLost))
        except ContextTooLong as error:
            effects = self.session.failed("too_long", str(error))
        except Exception:
            logger.exception("a step of %d tokens failed", job.num_tokens)
            effects = self.session.failed("internal", "the computation failed")
        else:
            # A row of a batch would keep the whole batch in the replay log's memory.
            num_new = self.session.counters.new_steps
            effects = self.session.executed(output.clone() if output._base is not None else output)
            if self._has_got_room or self.session.counters.new_steps > num_new:
                self.last_used_s, self._has_got_room = time.monotonic(), False
        self._count_accepted()
        self.carry_out(effects)

    async def _executed(self, job: Execute) -> torch.Tensor:
        if self._is_replaying and self.session.will_pass_on_state:
            await self.outgoing.wait_for_room()
        key = self.session.key
        hidden: torch.Tensor = job.payload.to(self._dtype)
        end = job.position + job.num_tokens
        while True:
            if self._rooms.lacks(key, end):
                self._has_got_room = True
                if not await self._rooms.wake(key, end):
                    raise KVFull("all KV pages of this server are in use, or the session is closed")
            cache = self._rooms.cache(key)
            if not self.session.wants_running:
                raise Overloaded("nobody waits for this step any more")
            try:
                work = Work(
                    cache,
                    self.session.span,
                    job.position,
                    hidden,
                    key.client,
                    self.session.is_long,
                    (key.client, key.session),
                )
                return await self._executor.run(work)
            except KVFull:  # it goes back to pages that it shares, and needs its own in their place
                self._rooms.ask(key, end)
                raise
            except ValueError:
                if not cache.is_away:  # else it was put aside in the moment before the step was taken
                    raise

    async def _link(self, link: Link) -> None:
        if link.epoch != self.session.epoch:
            return
        is_linked = link.next is None or await self._linked(link.epoch, link.next)
        self.carry_out(self.session.linked(link.epoch, is_linked=is_linked))

    async def _linked(self, epoch: int, next_hop: NextHop) -> bool:
        hello = Hello(
            client=self.session.key.client,
            session=self.session.key.session,
            epoch=epoch,
            stage=self.session.stage + 1,
            slot=next_hop.slot,
        )
        try:
            async with asyncio.timeout(LINK_S):
                stream = await self._open_chain(next_hop, hello)
        except (PeerUnreachable, TimeoutError) as error:
            logger.info("no link to %s: %s", next_hop.peer, error or "no answer")
            return False
        if not self.outgoing.attach(stream, epoch):
            stream.close()
            return False
        self._successor = stream
        self._watch_epoch.set()
        return True

    async def _watch_forever(self) -> None:
        """Notice at once when the successor closes our stream; it has nothing else to say there."""
        while True:
            await self._watch_epoch.wait()
            self._watch_epoch.clear()
            stream, epoch = self._successor, self.outgoing.epoch
            if stream is None:
                continue
            try:
                frame = await stream.read()
                logger.info("%s refused our stream: %s", stream.remote_id, frame.message)
            except (PeerUnreachable, ValueError) as error:
                logger.debug("the link to %s ended: %s", stream.remote_id, error)
            if stream is self._successor:
                self._on_broken(epoch)

    # --- the way out -----------------------------------------------------------------------------------

    def _send_next(self, send: SendNext) -> None:
        if send.epoch != self.outgoing.epoch:
            return
        payload = send.payload
        tensors = (lambda: (payload(),)) if send.is_logged else (payload,)
        if not self.outgoing.send(send.message, tensors):
            self.carry_out(self.session.overflowed(send.message))

    def _on_broken(self, epoch: int) -> None:
        self._successor = None
        self.carry_out(self.session.link_lost(epoch))
