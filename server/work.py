"""Steps on their way through the compute thread."""

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from torch import Tensor

from server.attention import Chunk
from server.kv_cache import SessionCache
from swarm.wire.blocks import PeerId, Span


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A step of one session on this server: `hidden` [tokens, hidden] at `position`, for `span`'s blocks."""

    cache: SessionCache
    span: Span
    position: int
    hidden: Tensor
    peer: PeerId
    is_long: bool = False
    session: Hashable = None  # which takes one step after the other, and may have several caches here


@dataclass(slots=True, eq=False)
class Job:
    """A work, how far it has come, and who waits for it."""

    work: Work
    future: asyncio.Future[Tensor]
    is_prompt: bool
    num_blocks: int
    done_tokens: int = 0
    is_unwanted: bool = False
    since_s: float = field(default_factory=time.monotonic)
    _output: Tensor | None = None

    @property
    def left_tokens(self) -> int:
        """Tokens that have not run."""
        return self.work.hidden.shape[0] - self.done_tokens

    def ran(self, tokens: int, output: Tensor) -> Tensor | None:
        """Keep what its next `tokens` gave, and return it with all that came before once that is the whole.

        Each part goes to its place at once: to join them at the end would hold everybody up.
        """
        all_tokens, before = self.work.hidden.shape[0], self.done_tokens
        self.done_tokens += tokens
        if tokens == all_tokens:
            return output
        if self._output is None:
            self._output = output.new_empty((all_tokens, output.shape[1]))
        self._output[before : self.done_tokens] = output
        return None if self.left_tokens else self._output

    def chunk(self, tokens: int) -> Chunk:
        """The next so many tokens."""
        work, at = self.work, self.done_tokens
        return Chunk(work.cache, work.span, work.position + at, work.hidden[at : at + tokens], work.is_long)
