"""What the operator has set for what people write."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Letters:
    """How much people may write."""

    message: int = 8000
    persona: int = 2000
