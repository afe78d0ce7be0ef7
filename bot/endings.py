"""How answers end, what is said below them then, and what readers may do about it."""

from storage.transcript import State

STATES: dict[str, State] = {"end": "done", "stop": "done", "length": "length"}
FOOTERS: dict[State, str] = {
    "stopped": "(stopped)",
    "length": "(the length limit was reached: `continue` goes on)",
    "interrupted": "(I was restarted: `continue` goes on)",
}
CONTROLS: dict[State, tuple[str, ...]] = {
    "done": ("retry",),
    "stopped": ("retry", "continue"),
    "length": ("continue", "retry"),
    "interrupted": ("continue", "retry"),
    "failed": ("retry",),
}
WHILE_WRITTEN = ("stop",)
"""What readers may do about an answer that has not ended."""
