"""Strangers' words on a terminal: nothing in them may move the cursor, turn the line, or widen a column.

Pure.
"""

import unicodedata

NOTHING = "-"
_MAX_MARKS = 1  # of one letter, after composition: more than that only stacks into the lines above


def plain(text: str, encoding: str = "utf-8") -> str:
    """`text` on one line, without control, format and unassigned characters; `-` if nothing is left.

    That takes out ANSI escapes, line ends, and the marks that switch the writing direction. What `encoding`
    cannot say becomes a question mark. `"a\\x1b[31m\\nb"` is `"a[31mb"`.
    """
    kept: list[str] = []
    num_marks = 0
    for letter in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(letter)
        num_marks = num_marks + 1 if kind in ("Mn", "Me") else 0
        if kind[0] == "C" or kind in ("Zl", "Zp") or num_marks > (_MAX_MARKS if kept else 0):
            continue
        kept.append(" " if kind == "Zs" else letter)
    said = "".join(kept).strip().encode(encoding, "replace").decode(encoding)
    return said or NOTHING


def num_cells(text: str) -> int:
    """Columns that `text` takes on a terminal: wide letters two, marks none."""
    return sum(_cells_of(letter) for letter in text)


def cut(text: str, max_cells: int, ellipsis: str) -> str:
    """`text`, or as much of its beginning as fits into `max_cells` columns together with `ellipsis`."""
    if num_cells(text) <= max_cells:
        return text
    room = max_cells - num_cells(ellipsis)
    kept = ""
    for letter in text:
        room -= _cells_of(letter)
        if room < 0:
            break
        kept += letter
    return kept + ellipsis


def _cells_of(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
