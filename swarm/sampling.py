"""Logits to tokens, with the numbers that `generate` of transformers would use: same processors, same draws.

transformers draws with `torch.multinomial` from the process's generator; here every session owns one, so
that a seed gives the same tokens whatever else runs. One draw per accepted token: who rolls an
answer back can go back in its draws with `state` and `restore`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from swarm.errors import ConfigError, SwarmError

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 200
MAX_TEMPERATURE = 10.0
MAX_SEED = 2**64 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Raises ConfigError if a value makes no sense.

    `temperature` 0 is greedy: the likeliest token, after the repetition penalty alone. `top_k` 0, `top_p`
    1, `min_p` 0 and `repetition_penalty` 1 leave everything as it is. Without a `seed` one is made up.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, 0, MAX_TEMPERATURE)
        _check_number("top_p", self.top_p, 0, 1)
        _check_number("min_p", self.min_p, 0, 1)
        _check_number("repetition_penalty", self.repetition_penalty, 0.1, 10)
        _check_count("top_k", self.top_k, 0, 1_000_000)
        _check_count("max_new_tokens", self.max_new_tokens, 1, 1_000_000)
        if self.seed is not None:
            _check_count("seed", self.seed, 0, MAX_SEED)
        if self.top_p == 0:
            raise ConfigError("top_p must be above 0; 1 leaves all tokens")
        if len(self.stop) > MAX_STOP_STRINGS or any(not 0 < len(s) <= MAX_STOP_CHARACTERS for s in self.stop):
            raise ConfigError(
                f"stop takes up to {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
            )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


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


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low:g} to {high:g}, not {value:g}")


def _check_count(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}")
