"""How tokens are chosen, as people say it. Needs no torch: the bot's small commands begin quickly."""

import math
from dataclasses import dataclass

from swarm.errors import ConfigError

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


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise ConfigError(f"{name} must be from {low:g} to {high:g}, not {value:g}")


def _check_count(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}")
