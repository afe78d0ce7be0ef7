"""Thoughts that a model writes down before it answers, as Qwen 3 does: hidden, unless wanted. Pure."""

import re

_THOUGHTS = re.compile(r"\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_BEGINNING = "<think>"


def without_thoughts(text: str) -> str:
    """`text` without the thoughts at its beginning, be they complete or not."""
    if thoughts := _THOUGHTS.match(text):
        return text[thoughts.end() :]
    stripped = text.lstrip()
    return "" if stripped and _BEGINNING.startswith(stripped) else text
