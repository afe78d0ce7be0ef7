"""What the operator has set for turns."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How much one turn may take."""

    seconds: float = 600.0
    """From when it was asked for until its answer is written, with all waiting."""
    context_tokens: int = 0
    """Of its conversation, the answer included; 0: what the model takes."""
