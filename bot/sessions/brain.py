"""A model whose blocks run in the swarm, as the core sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from bot.brain import Event, Message, Request, Writing
from bot.clock import Clock
from bot.measures import Measures
from bot.sessions.personas import Prefixes
from bot.sessions.pool import Limits, SessionPool
from bot.sessions.states import state_in_store
from bot.sessions.surveyor import Surveyor
from bot.survey import SessionState, Survey, Surveys
from storage.database import Database
from storage.live_sessions import LiveSession
from swarm.background import running, running_group
from swarm.chat import turn_ids
from swarm.checkpoint.fitting import BlockSize
from swarm.client import SwarmModel


class SwarmBrain:
    """See `open_brain`."""

    def __init__(
        self, model: SwarmModel, pool: SessionPool, surveyor: Surveyor, store: Database, clock: Clock
    ) -> None:
        self.name = model.checkpoint.name
        self.max_tokens = model.checkpoint.max_positions
        self.pool = pool
        self._model = model
        self._prefixes = Prefixes(model.tokenizer.encode_chat)
        self._surveyor = surveyor
        self._store = store
        self._clock = clock

    def encode(self, messages: Sequence[Message], held: Sequence[int] = ()) -> list[int]:
        """See bot.brain.Brain."""
        if not held:
            self._prefixes.learn(messages)
        return turn_ids(self._model.tokenizer, messages, held)

    def text_of(self, ids: Sequence[int]) -> str:
        """See bot.brain.Reads."""
        return self._model.tokenizer.decode(ids)

    @asynccontextmanager
    async def write(self, request: Request, on_event: Callable[[Event], None]) -> AsyncIterator[Writing]:
        """See bot.brain.Brain."""
        begins = not self.pool.is_open(request.conversation_id)
        async with self.pool.session(request.conversation_id, request.ids, on_event) as session:
            writing = self._model.generate(session, request.ids, request.params)
            try:
                yield writing
            finally:
                self._surveyor.note_speed(len(writing.ids), writing.tokens_per_second)
        if begins and not self.pool.is_short_of_room:
            self.pool.personas.begin(self._prefixes.of(request.ids))

    async def survey(self) -> Survey:
        """See bot.brain.Brain, as for all that follow."""
        return await self._surveyor.survey()

    async def surveys(self) -> Surveys:
        return await self._surveyor.surveys()

    async def block_sizes(self) -> Mapping[str, BlockSize]:
        return await self._surveyor.block_sizes()

    async def session_state(self, conversation_id: int) -> SessionState:
        found = self.pool.find(conversation_id)
        if found is not None:
            return found
        fingerprint, now_ms = self._model.checkpoint.fingerprint, self._clock.now_ms()
        return await self._store.read(state_in_store, conversation_id, fingerprint, now_ms)

    def is_open(self, conversation_id: int) -> bool:
        return self.pool.is_open(conversation_id)

    async def forget(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        await self.pool.forget(conversation_id, kept)

    async def forget_persona(self, instructions: str) -> None:
        ids = await asyncio.to_thread(self._prefixes.forget, instructions)
        await self.pool.personas.forget(ids)


@asynccontextmanager
async def open_brain(
    model: SwarmModel,
    store: Database,
    clock: Clock,
    limits: Limits | None = None,
    measures: Measures | None = None,
    others: Sequence[str] = (),
) -> AsyncIterator[SwarmBrain]:
    """The model's sessions, for the length of the block; what is open when it ends is put away.

    `others` are the models, by name or path, whose swarms are looked at beside its own.
    """
    async with running_group() as group:
        pool = SessionPool(model, store, clock, group, limits or Limits(), measures or Measures())
        async with running(pool.park_forever()):
            try:
                yield SwarmBrain(model, pool, Surveyor(model, clock, others), store, clock)
            finally:
                await pool.close()
