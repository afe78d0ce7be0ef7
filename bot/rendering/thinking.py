"""Thoughts that a model writes down before it answers, as Qwen 3 does: hidden, unless wanted. Pure.

They may be open before an answer begins: some chat templates open them, and what was cut off in mid-thought
is gone on with there. Such an answer is kept with the opening that it lacks: its own text tells what is a
thought.
"""

import re

_THOUGHTS = re.compile(r"\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_OPEN_AT_END = re.compile(r"<think>\s*\Z")
_BEGINNING, _END = "<think>", "</think>"
OPENING = f"{_BEGINNING}\n"


def without_thoughts(text: str) -> str:
    """`text` without the thoughts at its beginning, be they complete or not."""
    if thoughts := _THOUGHTS.match(text):
        return text[thoughts.end() :]
    stripped = text.lstrip()
    return "" if stripped and _BEGINNING.startswith(stripped) else text


def opening_after(answer: str) -> str:
    """What goes on after `answer` lacks so much at its beginning; "" unless that ends in mid-thought.

    A half `</think>` is a part of it: the other half follows.
    """
    if not answer.lstrip().startswith(_BEGINNING) or _END in answer:
        return ""
    return OPENING + next(
        (_END[:size] for size in range(len(_END) - 1, 0, -1) if answer.endswith(_END[:size])), ""
    )


def opening_of_prompt(prompt: str) -> str:
    """What the answer to `prompt` lacks at its beginning: thoughts that the chat template has opened."""
    return OPENING if _OPEN_AT_END.search(prompt) else ""


def joined(answer: str, more: str) -> str:
    """An answer and what went on after it, as the model has written them."""
    return answer + more.removeprefix(opening_after(answer))
