"""The brain of the demo's bot, with an eye on each answer: who writes it, and how fast."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import cast

from bot.brain import Event, Message, Request, Writing
from bot.sessions.brain import SwarmBrain
from bot.survey import SessionState, Survey, Surveys
from storage.live_sessions import LiveSession
from swarm.checkpoint.fitting import BlockSize
from swarm.generate import Generation


class WatchedBrain:
    """Passes everything on. `on_piece` is called with an answer whenever it has grown."""

    def __init__(
        self,
        brain: SwarmBrain,
        on_piece: Callable[[Generation], None],
        on_event: Callable[[Event], None],
    ) -> None:
        self.name = brain.name
        self.max_tokens = brain.max_tokens
        self.last: Generation | None = None
        self._brain = brain
        self._on_piece = on_piece
        self._on_event = on_event

    def encode(self, messages: Sequence[Message], held: Sequence[int] = ()) -> list[int]:
        """See bot.brain.Brain."""
        return self._brain.encode(messages, held)

    @asynccontextmanager
    async def write(self, request: Request, on_event: Callable[[Event], None]) -> AsyncIterator[Writing]:
        """See bot.brain.Brain."""

        def tell(event: Event) -> None:
            self._on_event(event)
            on_event(event)

        async with self._brain.write(request, tell) as writing:
            self.last = cast("Generation", writing)
            yield _Watched(self.last, self._on_piece)

    async def forget(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        """See bot.brain.Brain."""
        await self._brain.forget(conversation_id, kept)

    async def forget_persona(self, instructions: str) -> None:
        """See bot.brain.Brain, as for all that follow."""
        await self._brain.forget_persona(instructions)

    def is_open(self, conversation_id: int) -> bool:
        return self._brain.is_open(conversation_id)

    async def survey(self) -> Survey:
        return await self._brain.survey()

    async def surveys(self) -> Surveys:
        return await self._brain.surveys()

    async def block_sizes(self) -> Mapping[str, BlockSize]:
        return await self._brain.block_sizes()

    async def session_state(self, conversation_id: int) -> SessionState:
        return await self._brain.session_state(conversation_id)


class _Watched:
    """An answer, of which each piece is noted."""

    def __init__(self, generation: Generation, on_piece: Callable[[Generation], None]) -> None:
        self._generation = generation
        self._on_piece = on_piece

    @property
    def ids(self) -> list[int]:
        return self._generation.ids

    @property
    def text(self) -> str:
        return self._generation.text

    @property
    def num_shown(self) -> int:
        return self._generation.num_shown

    @property
    def finish(self) -> str:
        return self._generation.finish

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self._generation:
            yield piece
            self._on_piece(self._generation)
