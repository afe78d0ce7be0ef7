"""Logits to tokens, with the numbers that `generate` of transformers would use: same processors, same draws.

transformers draws with `torch.multinomial` from the process's generator; here every session owns one, so
that a seed gives the same tokens whatever else runs. One draw per accepted token: who rolls an
answer back can go back in its draws with `state` and `restore`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from swarm.errors import SwarmError
from swarm.sampling_params import SamplingParams

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


class Sampler:
    """Chooses one session's tokens; owns the session's generator."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._generator = torch.Generator("cpu")
        # torch takes seeds of 64 bits; made-up ones have 53, which any reader of JSON keeps exactly.
        self.seed = self._generator.seed() >> 11 if params.seed is None else params.seed
        self._generator.manual_seed(self.seed)
        self._processors = _build_processors(params)

    @torch.no_grad()
    def pick(self, logits: Tensor, ids: Sequence[int] | Tensor) -> int:
        """Choose the token that follows `ids` (prompt and answer so far), from logits [vocabulary] in fp32.

        Draws once, unless greedy. Raises SwarmError if the logits are not numbers, so that nothing can be
        chosen.
        """
        scores = logits.to(dtype=torch.float32, copy=True).unsqueeze(0)
        if bool(scores.isnan().any()):
            raise SwarmError("the swarm returned something that is not a number; try again")
        if self._processors:
            scores = self._processors(_as_batch(ids, self.params), scores)  # type: ignore[arg-type]
        if self.params.is_greedy:
            return int(scores.argmax(dim=-1))
        probabilities = scores.softmax(dim=-1)
        return int(torch.multinomial(probabilities, num_samples=1, generator=self._generator))

    def state(self) -> Tensor:
        """Return where the generator stands: about 5 KB, unaffected by later draws."""
        return self._generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Go back to where the generator stood when `state` was taken."""
        self._generator.set_state(state)


def _as_batch(ids: Sequence[int] | Tensor, params: SamplingParams) -> Tensor:
    """Return `ids` as [1, n]; only the repetition penalty looks at them, so else none are copied."""
    if params.repetition_penalty == 1:
        return torch.empty(1, 0, dtype=torch.long)
    return torch.as_tensor(ids, dtype=torch.long).unsqueeze(0)


def _build_processors(params: SamplingParams) -> "LogitsProcessorList":
    """Return what `generate` would apply, in its order."""
    from transformers.generation import logits_process as lp

    processors = lp.LogitsProcessorList()
    if params.repetition_penalty != 1:
        processors.append(lp.RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty)))
    if params.is_greedy:
        return processors
    if params.temperature != 1:
        processors.append(lp.TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        processors.append(lp.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(lp.TopPLogitsWarper(float(params.top_p)))
    if params.min_p:
        processors.append(lp.MinPLogitsWarper(float(params.min_p)))
    return processors
