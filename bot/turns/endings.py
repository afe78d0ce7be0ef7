"""How answers end, what is said below them then, and what readers may do about it."""

from storage.transcript import State

STATES: dict[str, State] = {"end": "done", "stop": "done", "length": "length"}
FOOTERS: dict[State, str] = {
    "stopped": "(stopped)",
    "length": "(the length limit was reached: `continue` goes on)",
    "interrupted": "(I was restarted: `continue` goes on)",
}
SILENT = "(I was restarted before I had said anything: please ask again)"
LATE = "(my time for this answer is over: `continue` goes on)"
LATE_SILENT = "I could not answer that in time; please try again later."
CONTROLS: dict[State, tuple[str, ...]] = {
    "done": ("retry", "report"),
    "stopped": ("retry", "continue", "report"),
    "length": ("continue", "retry", "report"),
    "interrupted": ("continue", "retry", "report"),
    "failed": ("retry", "report"),
}
WHILE_WRITTEN = ("stop",)
"""What readers may do about an answer that has not ended."""


def controls_after(state: State, *, has_text: bool) -> tuple[str, ...]:
    """What readers may do about an answer; nothing is gone on with, or reported, that has not begun."""
    return tuple(name for name in CONTROLS.get(state, ()) if has_text or name == "retry")


def footer_of(state: State, *, has_text: bool) -> str:
    """What is said below an answer."""
    return SILENT if state == "interrupted" and not has_text else FOOTERS.get(state, "")
