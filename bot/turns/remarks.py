"""What is worth saying below an answer beside how it ended. Pure."""

from collections.abc import Sequence

from bot.once import Once
from storage.transcript import Said

DAY_S = 86_400.0
QUOTED_LETTERS = 40
LEAST_TOKENS_PER_S = 1.0
FULL = "(this conversation is full: I forget its oldest part)"
SLOW = "(few servers share the work, so I am slow: `contribute` tells how to add one)"


class Remarks:
    """Remembers what was said in a conversation today."""

    def __init__(self) -> None:
        self._slow = Once(DAY_S)

    def on_speed(self, conversation_id: int, tokens_per_s: float | None, now_s: float) -> str:
        """That it is slow, once a day in each conversation; "" if it is not."""
        if tokens_per_s is None or tokens_per_s >= LEAST_TOKENS_PER_S:
            return ""
        return SLOW if self._slow.is_first(conversation_id, now_s) else ""


def on_path(said: Said, path: Sequence[Said], num_dropped: int) -> list[str]:
    """Where a conversation was forked from when it begins, and that it is full when that is new."""
    remarks = []
    behind = path[-1] if path else None
    if behind is None:
        return []
    if behind.question.conversation_id != said.question.conversation_id and not said.is_retry:
        remarks.append(f'(forked from the answer to "{_short(behind.question.prompt)}")')
    if num_dropped > behind.progress.num_dropped:
        remarks.append(FULL)
    return remarks


def on_quota(next_grant: str) -> str:
    """That the answer ended where the quota did."""
    return f"(your quota ends here; there is more {next_grant})"


def _short(prompt: str) -> str:
    """The beginning of a question, in one line and without what would format it."""
    line = " ".join(prompt.replace("`", "'").split())
    return line if len(line) <= QUOTED_LETTERS else f"{line[:QUOTED_LETTERS].rstrip()}..."
