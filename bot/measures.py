"""What is counted while the bot runs, as those see it who do the work: here nothing is kept.

`bot.observing.metrics` keeps it. No measure knows a person: platforms, models and outcomes alone. Pure.
"""

from dataclasses import dataclass
from typing import Literal

Edit = Literal["sent", "coalesced", "rate_limited"]


@dataclass(slots=True)
class Stopwatch:
    """When the first and the newest piece of an answer came, in milliseconds of the clock."""

    first_ms: int | None = None
    last_ms: int | None = None

    def note_piece(self, now_ms: int) -> None:
        """Some more of the answer is there."""
        self.first_ms = now_ms if self.first_ms is None else self.first_ms
        self.last_ms = now_ms

    def tokens_per_second(self, num_tokens: int) -> float | None:
        """The speed after the first token; None if there is no telling."""
        if self.first_ms is None or self.last_ms is None or num_tokens < 2 or self.last_ms <= self.first_ms:
            return None
        return 1000 * (num_tokens - 1) / (self.last_ms - self.first_ms)


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn that has ended: how, what it has taken since it was asked for, and how fast it was."""

    platform: str
    model: str
    outcome: str
    seconds: float
    first_token_s: float | None
    tokens_per_second: float | None
    prefill_tokens: int
    output_tokens: int


class Measures:
    """Forgets all that it is told."""

    def turn_ended(self, ended: Ended) -> None:
        """A turn has ended, however."""

    def edit(self, platform: str, outcome: Edit) -> None:
        """A message was changed, a newer text took its place before, or the platform refused it for now."""

    def delivery_retried(self, platform: str) -> None:
        """Something that must be shown was not, and is sent again."""

    def quota_refused(self, platform: str) -> None:
        """Somebody could not pay for a turn."""

    def session_rebuilt(self, cause: Literal["parked", "lost"]) -> None:
        """Servers were told a conversation again: none held it any more, or one was lost."""
