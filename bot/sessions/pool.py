"""Which conversations have a session open, and how a conversation without one gets it.

A conversation's session is live, or detached with a ticket in the store, or parked: then only its ids are
known, and it is told everything again. Whoever begins takes over what another session knows already, as a
persona's instructions: it is forked from there.
"""

import logging
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from bot.brain import Event
from bot.clock import Clock
from bot.measures import Measures
from bot.sessions.farewells import Farewells
from bot.sessions.forking import LEAST_SHARED_TOKENS, best_parent, num_shared
from bot.sessions.gates import Gates
from bot.sessions.holder import Holder
from bot.sessions.personas import Personas
from bot.sessions.states import TOLD_TOKENS, Broken, state_of
from bot.sessions.tickets import Tickets
from bot.survey import SessionState
from storage.database import Database
from storage.live_sessions import LiveSession
from swarm.background import RunningGroup, finish
from swarm.client import SwarmModel
from swarm.errors import LocalProtocolError, SwarmError
from swarm.inference import InferenceSession
from swarm.notices import Notice

logger = logging.getLogger(__name__)

KEEP_S = 5.0
LOOK_S = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions are open at once, and for how long."""

    live: int = 64
    personas: int = 8
    idle_s: float = 600.0
    lease_ms: int = 1_800_000


class SessionPool:
    """The sessions of one model. Its holders run in `group`."""

    def __init__(  # what it works with, and who is told
        self,
        model: SwarmModel,
        store: Database,
        clock: Clock,
        group: RunningGroup,
        limits: Limits,
        measures: Measures,
    ) -> None:
        self._clock = clock
        self._group = group
        self._limits = limits
        self._measures = measures
        self._holders: dict[Hashable, Holder] = {}
        self.personas = Personas(self._holders, self._hold, model.session, group, limits.personas)
        self._tickets = Tickets(model, store, clock, limits.lease_ms, self._session_of)
        self._farewells = Farewells(model, group)
        self._gates = Gates()
        self._starved: set[int] = set()
        """Conversations that wait because no server has room for them."""
        self._broken = Broken()

    @property
    def num_live(self) -> int:
        """Sessions that are open."""
        return len(self._holders)

    @property
    def is_short_of_room(self) -> bool:
        """Somebody waits because no server has room."""
        return bool(self._starved)

    @property
    def num_rebuilding(self) -> int:
        """Those of them that servers are being told again."""
        return sum(state_of(holder.session).kind == "rebuilding" for holder in self._holders.values())

    def find(self, conversation_id: int) -> SessionState | None:
        """How a session is that is open, or broke when it was last used; None if there is none."""
        holder = self._holders.get(conversation_id)
        return self._broken.state_of(conversation_id) if holder is None else state_of(holder.session)

    def is_open(self, conversation_id: int) -> bool:
        """Tell whether the conversation's session is open."""
        return conversation_id in self._holders

    @asynccontextmanager
    async def session(
        self, conversation_id: int, ids: Sequence[int], on_event: Callable[[Event], None]
    ) -> AsyncIterator[InferenceSession]:
        """The conversation's session, for a turn that tells it `ids` in all. Raises SwarmError."""
        async with AsyncExitStack() as stack:
            holder = await self._locked(stack, conversation_id, ids, on_event)
            session = await self._opened(conversation_id, holder)
            self._broken.forget(conversation_id)
            session.on_notice = lambda notice: self._pass_on(conversation_id, notice, on_event)
            try:
                yield session
            except SwarmError:
                await finish(self._drop(conversation_id), KEEP_S)
                self._broken.note(conversation_id)
                raise
            finally:
                session.on_notice = lambda notice: None
                holder.last_used_s = self._clock.now_s()
                self._starved.discard(conversation_id)
                await finish(self._rest(conversation_id, holder), KEEP_S)

    async def _locked(
        self,
        stack: AsyncExitStack,
        conversation_id: int,
        ids: Sequence[int],
        on_event: Callable[[Event], None],
    ) -> Holder:
        """The conversation's holder, ours until `stack` ends: while we waited it may have been put away."""
        while True:
            holder = self._holders.get(conversation_id) or await self._open(conversation_id, ids, on_event)
            await stack.enter_async_context(holder.lock)
            if self._holders.get(conversation_id) is holder:
                return holder
            await stack.aclose()

    async def forget(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        """See bot.brain.Brain."""
        await self._drop(conversation_id, kept)

    async def park_forever(self) -> None:
        """Put sessions away that nobody has used for a while; their servers keep them for their lease."""
        while True:
            await self._clock.sleep(LOOK_S)
            since_s = self._clock.now_s() - self._limits.idle_s
            for key, holder in tuple(self._holders.items()):
                if isinstance(key, int) and holder.is_idle and holder.last_used_s < since_s:
                    await self._put_away(key)

    async def close(self) -> None:
        """Put all sessions away."""
        for key, holder in tuple(self._holders.items()):
            await self._let_go(key, holder)
        await self._farewells.finish(KEEP_S)

    # --- opening ---------------------------------------------------------------------------------------

    async def _open(
        self, conversation_id: int, ids: Sequence[int], on_event: Callable[[Event], None]
    ) -> Holder:
        await self._make_room()
        async with self._gates.alone(conversation_id):
            if conversation_id in self._holders:  # somebody else was faster
                return self._holders[conversation_id]
            return await self._open_alone(conversation_id, ids, on_event)

    async def _open_alone(
        self, conversation_id: int, ids: Sequence[int], on_event: Callable[[Event], None]
    ) -> Holder:
        """Open it, past the conversation's gate: nobody forgets it meanwhile."""
        kept = await self._tickets.find(conversation_id)
        if kept is not None and self._tickets.is_good(kept):
            holder = self._hold(conversation_id, self._tickets.attached(kept))
            if await self._is_attached(conversation_id, holder):
                return holder
        if kept is None:
            with suppress(SwarmError):  # then all is told anew
                await self._wake_parent(conversation_id, ids)
        forked = self._forked(conversation_id, ids)
        if forked is not None:
            return self._hold(conversation_id, forked)
        if kept is not None or self._broken.state_of(conversation_id) is not None:
            self._measures.session_rebuilt("parked" if kept is not None else "lost")
        if len(ids) >= TOLD_TOKENS:
            on_event(Event("restoring", num_tokens=len(ids)))
        return self._hold(conversation_id, self._tickets.begun(conversation_id))

    async def _is_attached(self, conversation_id: int, holder: Holder) -> bool:
        """Tell whether a ticket fits; one that does not is thrown away: all is told anew then."""
        try:
            await self._opened(conversation_id, holder)
        except (LocalProtocolError, ValueError) as error:
            logger.warning("conversation %s cannot be attached to: %s", conversation_id, error)
            await self._close_alone(conversation_id)
            return False
        return True

    async def _wake_parent(self, conversation_id: int, ids: Sequence[int]) -> None:
        """Attach to the session of the conversation that this one goes on from, if it is detached."""
        kept = await self._tickets.find_of_parent(conversation_id)
        if kept is None or num_shared(list(kept.ids), list(ids)) < LEAST_SHARED_TOKENS:
            return
        parent_id = kept.conversation_id
        await self._make_room()
        async with self._gates.alone(parent_id):
            kept = await self._tickets.find(parent_id)  # it may have been forgotten meanwhile
            if kept is None or parent_id in self._holders or not self._tickets.is_good(kept):
                return
            holder = self._hold(parent_id, self._tickets.attached(kept))
            if await self._is_attached(parent_id, holder):
                async with holder.lock:
                    await (await holder.opened()).feed([])  # its servers are known then, and can fork it

    def _forked(
        self, conversation_id: int, ids: Sequence[int]
    ) -> AbstractAsyncContextManager[InferenceSession] | None:
        """A fork of the session that knows most of `ids`, if any knows enough."""
        found = best_parent(self._holders.values(), ids)
        if found is None:
            return None
        parent, shared = found
        assert parent.session is not None
        parent.last_used_s = self._clock.now_s()
        return parent.session.fork(shared, save_ticket=self._tickets.saver(conversation_id, ids[:shared]))

    def _hold(self, key: Hashable, opening: AbstractAsyncContextManager[InferenceSession]) -> Holder:
        holder = self._holders[key] = Holder(self._clock.now_s())
        self._group.create_task(holder.run(opening))
        return holder

    async def _opened(self, key: Hashable, holder: Holder) -> InferenceSession:
        try:
            return await holder.opened()
        except Exception:  # whatever the opening raised: what is not open is not held
            self._holders.pop(key, None)
            raise

    def _session_of(self, conversation_id: int) -> InferenceSession | None:
        holder = self._holders.get(conversation_id)
        return holder.session if holder is not None else None

    # --- telling ---------------------------------------------------------------------------------------

    def _pass_on(self, conversation_id: int, notice: Notice, on_event: Callable[[Event], None]) -> None:
        if notice.kind == "lost":
            self._measures.session_rebuilt("lost")
        elif notice.kind == "busy":
            self._starved.add(conversation_id)
            self._group.create_task(self._let_go_of_idle())
        on_event(Event(notice.kind, pause_s=notice.pause_s, peers=notice.peers))

    # --- letting go --------------------------------------------------------------------------------------

    async def _make_room(self) -> None:
        """Put the session away that nobody has used for longest, if too many are open."""
        idle = [
            (holder.last_used_s, key)
            for key, holder in self._holders.items()
            if isinstance(key, int) and holder.is_idle
        ]
        if len(self._holders) >= self._limits.live and idle:
            await self._put_away(min(idle)[1])

    async def _let_go_of_idle(self) -> None:
        """Let others have the room of sessions that nobody uses now: their servers drop those first."""
        for key, holder in tuple(self._holders.items()):
            if isinstance(key, int) and holder.is_idle and self._holders.get(key) is holder:
                await self._put_away(key)

    async def _rest(self, conversation_id: int, holder: Holder) -> None:
        """A turn has ended: its session waits for the next one, unless others wait for its room."""
        if self._starved and self._holders.get(conversation_id) is holder:
            await self._let_go(conversation_id, holder)
        elif holder.session is not None:
            await self._tickets.keep(conversation_id, holder.session)

    async def _put_away(self, key: Hashable) -> None:
        """Let go of a session that nobody uses; who wants it meanwhile waits, and attaches to it then."""
        holder = self._holders.get(key)
        if holder is not None:
            async with holder.lock:
                if self._holders.get(key) is holder:
                    await self._let_go(key, holder)

    async def _let_go(self, key: Hashable, holder: Holder) -> None:
        session = holder.session
        if isinstance(key, int) and session is not None:
            await self._tickets.keep(key, session)
        await holder.let_go(keep=isinstance(key, int))
        if self._holders.get(key) is holder:
            del self._holders[key]

    async def _drop(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        async with self._gates.alone(conversation_id):
            await self._close_alone(conversation_id, kept)

    async def _close_alone(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        """Close it, past the conversation's gate, and on servers that may hold it though it is not open."""
        holder = self._holders.pop(conversation_id, None)
        if holder is not None:
            await holder.let_go(keep=False)
        self._farewells.say(await self._tickets.take(conversation_id), kept)
