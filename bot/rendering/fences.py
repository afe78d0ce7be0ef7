"""Code fences in Markdown: which one is open where (CommonMark 0.31, sections 4.5 and 5.2). Pure.

Text is cut and shown before it is complete. A fence that is open at a cut is closed there and opened again
behind it, so that every message is whole in itself. A block quote ends with its message, and a fence in it
with it; only whether its text may go on in the next line is looked for.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TAB_COLUMNS = 4
MAX_QUOTES = 16
_WHITE = " \t"  # Markdown's; to Python there are more
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_MARK = re.compile(r"(`{3,}|~{3,})(.*)")
_BULLET = re.compile(r"(?:[-+*]|[0-9]{1,9}[.)])(?=[ \t]|$)")
_NO_INTERRUPTION = re.compile(r"(?:[-+*]|[0-9]{1,9}[.)])[ \t]*$|(?!0*1[.)])[0-9]{1,9}[.)]")
_UNDERLINE = re.compile(r"(?:-+|=+)[ \t]*$")
_RULE = re.compile(r"([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")


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
    quoted: "State | None" = None
    """What is open in the block quote that the line before is in: other blocks begin beside it."""
    is_empty_item: bool = False
    """The line before has begun a list item and has nothing in it: a blank line ends that item."""


def open_at_end(text: str) -> Fence | None:
    """The fence that is open after `text`, whose last line need not be complete."""
    state = State()
    for line in _LINE.findall(text):
        state = after_line(state, line)
    return state.fence


def lines_of(text: str) -> Iterator[tuple[int, State, str]]:
    """Each line of `text`: where it begins, what is open there, and the line with its end."""
    state = State()
    for line in _LINE.finditer(text):
        yield line.start(), state, line[0]
        state = after_line(state, line[0])


def after_line(state: State, line: str, num_quotes: int = 0) -> State:
    """What is open after `line`, which is in so many block quotes."""
    column, rest = _indent(line.rstrip("\r\n"))
    if not rest:
        return State(state.fence, state.items[:-1] if state.is_empty_item else state.items)
    if state.fence is not None:
        return _inside(state, state.fence, column, rest)
    items = kept = tuple(start for start in state.items if column >= start)
    is_beside = state.is_paragraph and state.quoted is None and kept == state.items
    if not (is_beside and _NO_INTERRUPTION.match(rest)):  # an empty item, or a number that is not the first
        column, rest, items = _past_bullets(column, rest, kept)
    container = items[-1] if items else 0
    if rest and column - container >= TAB_COLUMNS:  # it is code, if no more of a paragraph
        return state if state.is_paragraph and items == kept else State(None, items)
    if is_beside and items == kept and _UNDERLINE.match(rest):
        return State(None, items)  # the paragraph was a heading
    if rest.startswith(">"):
        before = state.quoted if state.quoted and items == state.items else State()
        quoted = _after_quote(before, column + 1, rest[1:], num_quotes + 1)
        return State(None, items, quoted.is_paragraph, quoted)
    return _after_block(state, items, kept, rest)


def _after_quote(state: State, column: int, rest: str, num_quotes: int) -> State:
    """What is open in a block quote after a line of it; one column behind its mark belongs to the mark."""
    if num_quotes > MAX_QUOTES:
        return State(is_paragraph=True)
    start, text = _indent(rest, column)
    return after_line(state, " " * (start - column - 1) + text, num_quotes)


def _after_block(state: State, items: tuple[int, ...], kept: tuple[int, ...], rest: str) -> State:
    """After a line that is `rest` in the innermost of `items`, of which `kept` were open before."""
    mark = _MARK.match(rest)
    if mark and (mark[1][0] == "~" or "`" not in mark[2]):
        return State(Fence(mark[1], mark[2].strip(), items[-1] if items else 0), items)
    if not rest or _RULE.match(rest) or _HEADING.match(rest):
        return State(None, items, is_empty_item=not rest)
    if state.is_paragraph and items == kept:
        return state
    return State(None, items, is_paragraph=True)


def _inside(state: State, fence: Fence, column: int, rest: str) -> State:
    """After a line in a fence: it may close it, or end the list item that it is in."""
    if column < fence.column:
        return after_line(State(None, state.items), " " * column + rest)
    mark = _MARK.match(rest.rstrip(_WHITE))
    is_closed = mark and not mark[2] and mark[1][0] == fence.mark[0] and len(mark[1]) >= len(fence.mark)
    if is_closed and column - fence.column < TAB_COLUMNS:
        return State(None, state.items)
    return state


def _past_bullets(column: int, rest: str, items: tuple[int, ...]) -> tuple[int, str, tuple[int, ...]]:
    """Where the contents of a line begin that may open list items: `- 1. text` opens two."""
    rule = _longest_rule(rest)
    while column - (items[-1] if items else 0) < TAB_COLUMNS and (bullet := _BULLET.match(rest)):
        if len(rest) <= rule and _RULE.match(rest):
            break
        behind = column + bullet.end()
        spaces, after = _indent(rest[bullet.end() :], behind)
        if not after or spaces - behind > TAB_COLUMNS:  # contents begin one column behind the bullet
            return spaces, after, (*items, behind + 1)
        column, rest, items = spaces, after, (*items, spaces)
    return column, rest, items


def _longest_rule(rest: str) -> int:
    """How many letters at the end of a line may be a rule; asked once, as a line may have many bullets."""
    text = rest.rstrip(_WHITE)
    return len(rest) - len(text.rstrip(text[-1:] + _WHITE)) if text.endswith(("-", "*", "_")) else 0


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
