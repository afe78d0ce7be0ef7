"""A model whose blocks run in the swarm, as the core sees it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from bot.brain import Event, Message, Request, Writing
from bot.clock import Clock
from bot.sessions.pool import Limits, SessionPool
from storage.database import Database
from swarm.background import running, running_group
from swarm.chat import turn_ids
from swarm.client import SwarmModel


class SwarmBrain:
    """See `open_brain`."""

    def __init__(self, model: SwarmModel, pool: SessionPool) -> None:
        self.name = model.checkpoint.name
        self.max_tokens = model.checkpoint.max_positions
        self.pool = pool
        self._model = model

    def encode(self, messages: Sequence[Message], held: Sequence[int] = ()) -> list[int]:
        """See bot.brain.Brain."""
        return turn_ids(self._model.tokenizer, messages, held)

    @asynccontextmanager
    async def write(self, request: Request, on_event: Callable[[Event], None]) -> AsyncIterator[Writing]:
        """See bot.brain.Brain."""
        async with self.pool.session(request.conversation_id, request.ids, on_event) as session:
            yield self._model.generate(session, request.ids, request.params)

    async def forget(self, conversation_id: int) -> None:
        """See bot.brain.Brain."""
        await self.pool.forget(conversation_id)


@asynccontextmanager
async def open_brain(
    model: SwarmModel, store: Database, clock: Clock, limits: Limits | None = None
) -> AsyncIterator[SwarmBrain]:
    """The model's sessions, for the length of the block; what is open when it ends is put away."""
    async with running_group() as group:
        pool = SessionPool(model, store, clock, group, limits or Limits())
        async with running(pool.park_forever()):
            try:
                yield SwarmBrain(model, pool)
            finally:
                await pool.close()
