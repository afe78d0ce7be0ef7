"""Prompt in, stream of text out: sampling, detokenizing and stopping around an inference session."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import torch

from swarm.inference import InferenceSession
from swarm.model_ends import ModelEnds
from swarm.sampling import Sampler
from swarm.sampling_params import SamplingParams
from swarm.text import Tokenizer

Finish = Literal["", "end", "stop", "length"]
INLINE_S = 0.002


class Generation:
    """One answer being written: iterate over it for pieces of text; `ids`, `text` and `finish` grow with it.

    `finish` is `end` after the model's end-of-turn, `stop` after a stop string, `length` at the limit, and
    empty while the answer is not finished. Leaving the iteration early leaves the session consistent.
    """

    def __init__(
        self,
        session: InferenceSession,
        ends: ModelEnds,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        params: SamplingParams,
    ) -> None:
        self.session = session
        self.ids: list[int] = []
        self.text = ""
        self.finish: Finish = ""
        self.first_token_s: float | None = None
        self.seconds = 0.0
        self.sampler = Sampler(params)
        self._ends = ends
        self._tokenizer = tokenizer
        self.prompt_ids = list(prompt_ids)
        self._params = params

    @property
    def num_shown(self) -> int:
        """Tokens whose text is a part of the answer: the model's end of turn is none."""
        return len(self.ids) - (self.finish == "end")

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token; 0 with fewer than two tokens."""
        if self.first_token_s is None or len(self.ids) < 2:
            return 0.0
        return (len(self.ids) - 1) / max(1e-9, self.seconds - self.first_token_s)

    async def __aiter__(self) -> AsyncIterator[str]:
        stream = self._tokenizer.stream((*self._params.stop, *self._tokenizer.stop_strings))
        async for token_id in self.tokens():
            piece = "" if token_id in self._tokenizer.eos_ids else stream.push(token_id)
            if stream.stopped:
                self.finish = "stop"
            if piece:
                self.text += piece
                yield piece
            if self.finish:
                break
        rest = stream.flush()
        if rest:
            self.text += rest
            yield rest

    async def tokens(self) -> AsyncIterator[int]:
        """Token ids of the answer, its end-of-turn included, as they are drawn."""
        started = time.monotonic()
        history = self._align()
        hidden = await self.session.feed(history)
        while not self.finish:
            token_id = await self._pick(hidden)
            self.ids.append(token_id)
            self.seconds = time.monotonic() - started
            if self.first_token_s is None:
                self.first_token_s = self.seconds
            if token_id in self._tokenizer.eos_ids:
                self.finish = "end"
            elif len(self.ids) >= self._params.max_new_tokens:
                self.finish = "length"
            yield token_id
            if not self.finish:
                hidden = await self.session.feed([token_id])

    def _align(self) -> list[int]:
        """Roll the session back to where it and the prompt part; returns the tokens that it lacks.

        At least one token is fed: its output is what the first draw is made from.
        """
        shared = 0
        for held, wanted in zip(self.session.ids, self.prompt_ids[:-1], strict=False):
            if held != wanted:
                break
            shared += 1
        self.session.rollback(shared)
        return self.prompt_ids[shared:]

    async def _pick(self, hidden: torch.Tensor) -> int:
        ids = [*self.prompt_ids, *self.ids]
        if self._ends.token_s < INLINE_S:
            return self._draw(hidden, ids)
        return await asyncio.to_thread(self._draw, hidden, ids)

    def _draw(self, hidden: torch.Tensor, ids: list[int]) -> int:
        return self.sampler.pick(self._ends.logits(hidden)[-1], ids)
