"""Code fences in Markdown: which one is open where (CommonMark 0.31, sections 4.5 and 5.2). Pure.

Text is cut and shown before it is complete. A fence that is open at a cut is closed there and opened again
behind it, so that every message is whole in itself. Block quotes are not looked into: they end with their
message, and a fence in one with them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TAB_COLUMNS = 4
_BULLET = re.compile(r"(?:[-+*]|\d{1,9}[.)])(?= |\t|$)")
_MARK = re.compile(r"(`{3,}|~{3,})(.*)", re.DOTALL)
_NO_INTERRUPTION = re.compile(r"(?:[-+*]|\d{1,9}[.)])\s*$|(?!0*1[.)])\d{1,9}[.)]")
_UNDERLINE = re.compile(r"(?:-+|=+)[ \t]*$")
_NEW_BLOCK = ("#", ">", "---", "***", "___")
_NO_TEXT = ("#", "---", "***", "___")


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code fence: its characters, what it says about the code, and where it stands."""

    mark: str
    info: str
    column: int
    """Of the list item that it is in; 0 outside of lists."""

    def closing(self) -> str:
        """The line that closes it, without the line's end."""
        return " " * self.column + self.mark


@dataclass(frozen=True, slots=True)
class State:
    """What is open at the beginning of a line."""

    fence: Fence | None = None
    items: tuple[int, ...] = ()
    """The columns at which the contents of open list items begin, outermost first."""
    is_paragraph: bool = False
    """The line before is text, which goes on in the next line whatever its column is."""
    is_empty_item: bool = False
    """The line before has begun a list item and has nothing in it: a blank line ends that item."""


def open_at_end(text: str) -> Fence | None:
    """The fence that is open after `text`, whose last line need not be complete."""
    state = State()
    for line in text.splitlines(keepends=True):
        state = after_line(state, line)
    return state.fence


def lines_of(text: str) -> Iterator[tuple[int, State, str]]:
    """Each line of `text`: where it begins, what is open there, and the line with its end."""
    state, start = State(), 0
    for line in text.splitlines(keepends=True):
        yield start, state, line
        state, start = after_line(state, line), start + len(line)


def after_line(state: State, line: str) -> State:
    """What is open after `line`."""
    column, rest = _indent(line)
    if not rest.strip():
        return State(state.fence, state.items[:-1] if state.is_empty_item else state.items)
    if state.fence is not None:
        return _inside(state, state.fence, column, rest)
    items = kept = tuple(start for start in state.items if column >= start)
    is_beside = state.is_paragraph and kept == state.items
    if not (is_beside and _NO_INTERRUPTION.match(rest)):  # an empty item, or a number that is not the first
        column, rest, items = _past_bullets(column, rest, kept)
    container = items[-1] if items else 0
    if is_beside and items == kept and _UNDERLINE.match(rest) and column - container < TAB_COLUMNS:
        return State(None, items)  # the paragraph was a heading
    mark = _MARK.match(rest.rstrip("\n")) if column - container < TAB_COLUMNS else None
    if mark and (mark[1][0] == "~" or "`" not in mark[2]):
        return State(Fence(mark[1], mark[2].strip(), container), items)
    is_text = bool(rest.strip()) and (state.is_paragraph or column - container < TAB_COLUMNS)
    goes_on = state.is_paragraph and items == kept != state.items and not rest.startswith(_NEW_BLOCK)
    if goes_on:
        return State(None, state.items, is_text)
    return State(None, items, is_text and not rest.startswith(_NO_TEXT), is_empty_item=not rest.strip())


def _inside(state: State, fence: Fence, column: int, rest: str) -> State:
    """After a line in a fence: it may close it, or end the list item that it is in."""
    if column < fence.column:
        return after_line(State(None, state.items), " " * column + rest)
    mark = _MARK.match(rest.rstrip())
    is_closed = mark and not mark[2] and mark[1][0] == fence.mark[0] and len(mark[1]) >= len(fence.mark)
    if is_closed and column - fence.column < TAB_COLUMNS:
        return State(None, state.items)
    return state


def _past_bullets(column: int, rest: str, items: tuple[int, ...]) -> tuple[int, str, tuple[int, ...]]:
    """Where the contents of a line begin that may open list items: `- 1. text` opens two."""
    while column - (items[-1] if items else 0) < TAB_COLUMNS and (bullet := _BULLET.match(rest)):
        behind = column + bullet.end()
        spaces, after = _indent(rest[bullet.end() :], behind)
        if not after.strip() or spaces - behind > TAB_COLUMNS:  # contents begin one column behind the bullet
            return spaces, after, (*items, behind + 1)
        column, rest, items = spaces, after, (*items, spaces)
    return column, rest, items


def _indent(line: str, column: int = 0) -> tuple[int, str]:
    """The column at which a line's text begins, and that text."""
    for index, letter in enumerate(line):
        if letter == " ":
            column += 1
        elif letter == "\t":
            column += TAB_COLUMNS - column % TAB_COLUMNS
        else:
            return column, line[index:]
    return column, ""
