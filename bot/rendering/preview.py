"""What is shown of an answer while it is written: as if it ended here, and a mark that it does not. Pure."""

import re

from bot.rendering.fences import lines_of, open_at_end
from bot.rendering.splitting import Measure, Part, split

MARK = "..."
"""Plain letters: a block or a cursor is an empty box in some clients."""
MAX_CODE_MARK = 8
EXTRA = len(f" {MARK}") + MAX_CODE_MARK
"""By so much the last part may be longer than the limit: cuts are where they will be in the end."""

_RUN = re.compile(r"`+")


def preview(text: str, limit: int, measure: Measure = len) -> list[Part]:
    """Parts of an answer that is not complete, as `split` cuts it; the last one says so."""
    *before, last = split(text.rstrip(), limit, measure) or [Part("", "", "")]
    return [*before, _unfinished(last)]


def _unfinished(part: Part) -> Part:
    if part.closing:
        return Part(part.opening, part.body, f"{part.closing}\n{MARK}")
    if not part.body:
        return Part("", "", MARK)
    *_, last_line = part.body.splitlines()
    is_fence = last_line.lstrip().startswith(("```", "~~~"))
    return Part(part.opening, part.body, open_code_mark(part.text) + ("\n" if is_fence else " ") + MARK)


def open_code_mark(text: str) -> str:
    """What ends the inline code that is open at the end of `text`; "" if none is, or more marks may come.

    One more behind others would make them longer, and at a line's beginning a fence.
    """
    if open_at_end(text) is not None or text.endswith("`"):
        return ""
    paragraph = max((start for start, state, _ in lines_of(text) if not state.is_paragraph), default=0)
    runs = [match[0] for match in _RUN.finditer(text, paragraph)]
    while runs:
        run = runs.pop(0)
        if run in runs:
            del runs[: runs.index(run) + 1]
        elif len(run) <= MAX_CODE_MARK:
            return run
    return ""
