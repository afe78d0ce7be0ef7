"""Cut an answer into messages: none too long, each whole in itself, nothing added but fences. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import regex

from bot.rendering.fences import Fence, State, after_line, lines_of, open_at_end

Measure = Callable[[str], int]
"""The size of a text in the units of a platform; more text is never smaller."""

LEAST_LIMIT = 100
MAX_MARK = 16
"""A fence that is longer is opened again as one of this length."""
OPENING_SHARE = 4
"""What is opened again takes at most a quarter of a message."""
MAX_TRIES = 8
LEAST_FILLED = 0.5
"""A part that ends at a paragraph, line, sentence or word is filled at least so far, or cut further on."""

_ENDS = (
    regex.compile(r"\n[ \t]*\n+", regex.REVERSE),
    regex.compile(r"\n", regex.REVERSE),
    regex.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|(?<=[。！？])", regex.REVERSE),  # noqa: RUF001
    regex.compile(r"\s+", regex.REVERSE),
)
"""Where to cut rather, best first: behind a paragraph, line, sentence, word."""
_LETTER = regex.compile(r"\X")


@dataclass(frozen=True, slots=True)
class Part:
    """One message. The bodies of all parts, one after the other, are the text that was cut."""

    opening: str
    body: str
    closing: str

    @property
    def text(self) -> str:
        """What is shown."""
        return self.opening + self.body + self.closing


def utf16_units(text: str) -> int:
    """How Discord counts: letters outside the basic plane, as most emoji, are two."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def split(text: str, limit: int, measure: Measure = len) -> list[Part]:
    """Cut `text` into parts of at most `limit`; none for no text. Raises ValueError if the limit is tiny."""
    if limit < LEAST_LIMIT:
        raise ValueError(f"a message must have room for {LEAST_LIMIT} at least")
    cutter, parts, start = _Cutter(text, lambda shown: measure(shown) <= limit), [], 0
    while start < len(text):
        parts.append(cutter.part_from(start))
        start += len(parts[-1].body)
    return parts


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the text: how to go on at its beginning, how within it, and where it must not be cut."""

    end: int
    at_start: str
    within: str
    uncut: range


class _Cutter:
    """One text, and what fits into a message."""

    def __init__(self, text: str, fits: Callable[[str], bool]) -> None:
        self._text = text
        self._fits = fits
        self._starts, self._lines = [], []
        for start, state, line in lines_of(text):
            self._starts.append(start)
            self._lines.append(_described(start, state, line))

    def part_from(self, start: int) -> Part:
        """The part that begins at `start`."""
        opening = self._opening(start)
        if self._fits(opening + self._text[start:]):
            whole = self._part(opening, start, len(self._text))
            if self._fits(whole.text):
                return whole
        most = self._most(opening, start)
        for end in chain(self._good_ends(start, most), self._any_ends(opening, start, most)):
            part = self._part(opening, start, end)
            if self._fits(part.text):
                return part
        raise AssertionError("one letter and a short fence fit into every message")

    def _part(self, opening: str, start: int, end: int) -> Part:
        body = self._text[start:end]
        fence = open_at_end(opening + body)
        if fence is None:
            return Part(opening, body, "")
        return Part(opening, body, ("" if body.endswith("\n") else "\n") + fence.closing())

    def _opening(self, place: int) -> str:
        """What the part at `place` begins with; the language is not said again if its name is long."""
        index = bisect_right(self._starts, place) - 1
        line = self._lines[index]
        opening = line.at_start if place == self._starts[index] else line.within
        if self._fits(opening * OPENING_SHARE):
            return opening
        return opening[: len(opening) - len(opening.lstrip("`~"))] + ("\n" if opening.endswith("\n") else "")

    def _most(self, opening: str, start: int) -> int:
        """The furthest end that would fit if nothing had to be closed."""
        length = LEAST_LIMIT
        while start + length < len(self._text) and self._fits(opening + self._text[start : start + length]):
            length *= 2
        ends = range(start + 1, min(start + length, len(self._text)) + 1)
        fitting = bisect_left(ends, True, key=lambda end: not self._fits(opening + self._text[start:end]))
        return ends[max(0, fitting - 1)]

    def _good_ends(self, start: int, most: int) -> Iterator[int]:
        """Where a reader would cut, best first."""
        least = start + int(LEAST_FILLED * (most - start))
        for pattern in _ENDS:
            ends = (match.end() for match in pattern.finditer(self._text, start, most))
            yield from islice((end for end in ends if end > least and self._may_cut(end)), MAX_TRIES)

    def _any_ends(self, opening: str, start: int, most: int) -> Iterator[int]:
        """The furthest ends that fit, between two letters, or at worst within one."""
        letters = [match.end() for match in _LETTER.finditer(self._text, start, most)]
        for ends in ([end for end in letters if self._may_cut(end)], letters, range(start + 1, most + 1)):
            fitting = bisect_left(
                ends, True, key=lambda end: not self._fits(self._part(opening, start, end).text)
            )
            if fitting:
                yield ends[fitting - 1]
        yield start + 1

    def _may_cut(self, place: int) -> bool:
        index = max(0, bisect_right(self._starts, place) - 1)
        lines = self._lines[max(0, index - 1) : index + 1]
        return not any(place in line.uncut for line in lines)


def _described(start: int, state: State, line: str) -> _Line:
    end, after = start + len(line), after_line(state, line)
    at_start = _opening_of(state.fence)
    if after.fence == state.fence:
        return _Line(end, at_start, at_start, range(0))
    if after.fence is not None:  # it opens a fence: no message ends with an empty one
        return _Line(end, at_start, after.fence.mark[:MAX_MARK], range(start + 1, end + 1))
    return _Line(end, at_start, at_start, range(start, end))


def _opening_of(fence: Fence | None) -> str:
    return "" if fence is None else f"{fence.mark[:MAX_MARK]}{fence.info}\n"
