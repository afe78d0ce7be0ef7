"""The model as the core sees it: it encodes conversations and writes answers, wherever its blocks run."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bot.survey import SessionState, Survey, Surveys
from storage.live_sessions import LiveSession
from swarm.checkpoint.fitting import BlockSize
from swarm.sampling_params import SamplingParams

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, slots=True)
class Request:
    """An answer that is wanted. `ids` is all that the session holds before it; what it has is not sent."""

    conversation_id: int
    ids: Sequence[int]
    params: SamplingParams


class Writing(Protocol):
    """An answer that is being written: iterate over it for pieces of text."""

    @property
    def ids(self) -> list[int]:
        """Token ids of the answer so far."""

    @property
    def text(self) -> str:
        """What they say."""

    @property
    def num_shown(self) -> int:
        """Of the ids, those whose text is a part of the answer: what is paid for."""

    @property
    def finish(self) -> str:
        """`end`, `stop` or `length` when it is finished; empty before."""

    def __aiter__(self) -> AsyncIterator[str]: ...


@dataclass(frozen=True, slots=True)
class Event:
    """What a person who waits may want to know: `lost`, `full`, `busy`, `recovered` or `restoring`."""

    kind: str
    pause_s: float = 0.0
    num_tokens: int = 0
    peers: frozenset[str] = frozenset()
    """The servers that it is about."""


class Brain(Protocol):
    """One model."""

    name: str
    max_tokens: int | None
    """The longest conversation that it takes; None if it does not say."""

    def encode(self, messages: Sequence[Message], held: Sequence[int] = ()) -> list[int]:
        """Ids of a conversation up to the answer that is wanted, going on from `held` where that is possible.

        `held` are those of all but the last message, as a session holds them.
        """

    def write(
        self, request: Request, on_event: Callable[[Event], None]
    ) -> AbstractAsyncContextManager[Writing]:
        """Begin an answer in the conversation's session, which is kept in any case. Raises SwarmError."""

    def is_open(self, conversation_id: int) -> bool:
        """Tell whether the conversation's session is open."""

    async def forget(self, conversation_id: int, kept: LiveSession | None = None) -> None:
        """Close the conversation's session, here and on its servers: what it knows is not to be kept.

        `kept` is what the store knew of it, if the conversation is gone from there.
        """

    async def forget_persona(self, instructions: str) -> None:
        """Close what knows these instructions and nothing more: no conversation follows them any more."""

    async def survey(self) -> Survey:
        """How the model's swarm is now, or was a few seconds ago. Raises SwarmError."""

    async def surveys(self) -> Surveys:
        """That, and the same of the other models that are named in the configuration. Raises SwarmError."""

    async def block_sizes(self) -> Mapping[str, BlockSize]:
        """What one block takes on a server, in each quantization it may have. Raises ConfigError."""

    async def session_state(self, conversation_id: int) -> SessionState:
        """How a conversation's session is."""


@runtime_checkable
class Reads(Protocol):
    """A model that can tell what token ids say."""

    def text_of(self, ids: Sequence[int]) -> str:
        """As text, with the tokens that mark thoughts."""
