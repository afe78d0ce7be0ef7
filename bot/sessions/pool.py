"""Which conversations have a session open, and how a conversation without one gets it.

A conversation's session is live, or detached with a ticket in the store, or parked: then only its ids are
known, and it is told everything again. Whoever begins takes over what another session knows already, as a
persona's instructions: it is forked from there.
"""

import logging
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile

from bot.brain import Event
from bot.clock import Clock
from bot.sessions.holder import Holder
from storage.database import Database
from storage.errors import StorageError
from storage.live_sessions import LiveSession, drop_session, keep_session, kept_session
from swarm.background import RunningGroup, finish
from swarm.client import SwarmModel
from swarm.errors import LocalProtocolError, SwarmError
from swarm.inference import InferenceSession, Notice

logger = logging.getLogger(__name__)

KEEP_S = 5.0
LOOK_S = 15.0
LEAST_SHARED_TOKENS = 16
"""To fork for fewer costs more than to tell them again."""
TOLD_TOKENS = 256
"""Restoring so much takes long enough to be worth a word."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions are open at once, and for how long."""

    live: int = 64
    personas: int = 8
    idle_s: float = 600.0
    lease_ms: int = 1_800_000


class SessionPool:
    """The sessions of one model. Its holders run in `group`."""

    def __init__(
        self, model: SwarmModel, store: Database, clock: Clock, group: RunningGroup, limits: Limits
    ) -> None:
        self._model = model
        self._store = store
        self._clock = clock
        self._group = group
        self._limits = limits
        self._holders: dict[Hashable, Holder] = {}

    @property
    def num_live(self) -> int:
        """Sessions that are open."""
        return len(self._holders)

    def state_of(self, conversation_id: int) -> str:
        """`live`, or "" if it is not."""
        return "live" if conversation_id in self._holders else ""

    @asynccontextmanager
    async def session(
        self, conversation_id: int, ids: Sequence[int], on_event: Callable[[Event], None]
    ) -> AsyncIterator[InferenceSession]:
        """The conversation's session, for a turn that tells it `ids` in all. Raises SwarmError."""
        async with AsyncExitStack() as stack:
            holder = await self._locked(stack, conversation_id, ids, on_event)
            session = await self._opened(conversation_id, holder)
            session.on_notice = lambda notice: _pass_on(notice, on_event)
            try:
                yield session
            except SwarmError:
                await finish(self._drop(conversation_id), KEEP_S)
                raise
            finally:
                session.on_notice = lambda notice: None
                holder.last_used_s = self._clock.now_s()
                if holder.session is not None:
                    await finish(self._keep(conversation_id, holder.session), KEEP_S)

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

    async def forget(self, conversation_id: int) -> None:
        """Close a conversation's session, here and on its servers: what it knows is not to be kept."""
        await self._drop(conversation_id)

    async def prefill(self, ids: Sequence[int]) -> None:
        """Have a session that knows a persona's instructions, for others to fork. Raises SwarmError."""
        key = ("persona", tuple(ids))
        if key in self._holders:
            return
        personas = [each for each in self._holders if isinstance(each, tuple)]
        for old in personas[: max(0, len(personas) - self._limits.personas + 1)]:
            await self._holders.pop(old).let_go(keep=False)
        holder = self._hold(key, self._model.session())
        async with holder.lock:
            await (await self._opened(key, holder)).feed(ids)

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
        for key in tuple(self._holders):
            await self._put_away(key)

    # --- opening ---------------------------------------------------------------------------------------

    async def _open(
        self, conversation_id: int, ids: Sequence[int], on_event: Callable[[Event], None]
    ) -> Holder:
        kept = await self._store.read(kept_session, conversation_id)
        await self._make_room()
        if conversation_id in self._holders:  # somebody else was faster
            return self._holders[conversation_id]
        if kept is not None and self._may_attach(kept):
            holder = self._hold(conversation_id, self._attached(conversation_id, kept))
            if await self._is_attached(conversation_id, holder):
                return holder
        forked = self._forked(conversation_id, ids)
        if forked is not None:
            return self._hold(conversation_id, forked)
        if len(ids) >= TOLD_TOKENS:
            on_event(Event("restoring", num_tokens=len(ids)))
        return self._hold(conversation_id, self._model.session(save_ticket=self._saver(conversation_id)))

    def _attached(
        self, conversation_id: int, kept: LiveSession
    ) -> AbstractAsyncContextManager[InferenceSession]:
        return self._model.session(
            ticket=kept.ticket, ids=kept.ids, save_ticket=self._saver(conversation_id, kept.ids)
        )

    def _may_attach(self, kept: LiveSession) -> bool:
        """The servers still hold it, and it is one of this model."""
        is_ours = kept.fingerprint == self._model.checkpoint.fingerprint
        return is_ours and kept.lease_until_ms > self._clock.now_ms()

    async def _is_attached(self, conversation_id: int, holder: Holder) -> bool:
        """Tell whether a ticket fits; one that does not is thrown away: all is told anew then."""
        try:
            await holder.opened()
        except (LocalProtocolError, ValueError) as error:
            logger.warning("conversation %s cannot be attached to: %s", conversation_id, error)
            await self._drop(conversation_id)
            return False
        except Exception:
            self._holders.pop(conversation_id, None)
            raise
        return True

    def _forked(
        self, conversation_id: int, ids: Sequence[int]
    ) -> AbstractAsyncContextManager[InferenceSession] | None:
        """A fork of the session that knows most of `ids`, if any knows enough."""
        known = [
            (holder.session.forkable(_num_shared(holder.session.ids, ids[:-1])), holder.session)
            for holder in self._holders.values()
            if holder.is_idle and holder.session is not None
        ]
        shared, parent = max(known, key=lambda each: each[0], default=(0, None))
        if parent is None or shared < LEAST_SHARED_TOKENS:
            return None
        return parent.fork(shared, save_ticket=self._saver(conversation_id, ids[:shared]))

    def _hold(self, key: Hashable, opening: AbstractAsyncContextManager[InferenceSession]) -> Holder:
        holder = self._holders[key] = Holder(self._clock.now_s())
        self._group.create_task(holder.run(opening))
        return holder

    async def _opened(self, key: Hashable, holder: Holder) -> InferenceSession:
        try:
            return await holder.opened()
        except Exception:
            self._holders.pop(key, None)
            raise

    # --- keeping ---------------------------------------------------------------------------------------

    def _saver(self, conversation_id: int, known: Sequence[int] = ()) -> Callable[[bytes], None]:
        """Writes a ticket down before its epoch is used; `known` are the ids before the session is open."""

        def save(ticket: bytes) -> None:
            holder = self._holders.get(conversation_id)
            session = holder.session if holder is not None else None
            ids = session.ids if session is not None else known
            self._store.write_now(keep_session, self._live(conversation_id, ticket, ids))

        return save

    async def _keep(self, conversation_id: int, session: InferenceSession) -> None:
        """Note the newest ticket. Without it only time is lost."""
        live = self._live(conversation_id, session.ticket(), session.ids)
        try:
            await self._store.write(keep_session, live)
        except StorageError as error:
            logger.warning("the ticket of conversation %s is not kept: %s", conversation_id, error)

    def _live(self, conversation_id: int, ticket: bytes, ids: Sequence[int]) -> LiveSession:
        until_ms = self._clock.now_ms() + self._limits.lease_ms
        return LiveSession(conversation_id, self._model.checkpoint.fingerprint, ticket, ids, until_ms)

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

    async def _put_away(self, key: Hashable) -> None:
        holder = self._holders.pop(key)
        session = holder.session
        if isinstance(key, int) and session is not None:
            await self._keep(key, session)
        await holder.let_go(keep=isinstance(key, int))

    async def _drop(self, conversation_id: int) -> None:
        holder = self._holders.pop(conversation_id, None)
        if holder is not None:
            await holder.let_go(keep=False)
        await self._store.write(drop_session, conversation_id)


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _pass_on(notice: Notice, on_event: Callable[[Event], None]) -> None:
    on_event(Event(notice.kind, pause_s=notice.pause_s, peers=notice.peers))
