"""Phrasings with alternatives: `how (do|can) i {verb}` stands for many questions.

`(a|b|)` is one of its alternatives (they nest), `{name}` an entry of the list `name`, itself a phrasing.
This file knows nothing of intents: it parses, draws at random, and makes regular expressions of phrasings.
"""

import math
import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_FOLDER = Path(__file__).parent
_TOKEN = re.compile(r"[(|)]|\{\w+\}|[^(|){}]+")


@dataclass(frozen=True)
class Phrasing:
    """A parsed phrasing: alternatives, each a sequence of words and phrasings."""

    alternatives: tuple[tuple["str | Phrasing", ...], ...]

    def draw(self, rng: random.Random) -> str:
        """Return one of the questions it stands for, all alternatives of a group being equally likely."""
        parts = rng.choice(self.alternatives)
        return "".join(part if isinstance(part, str) else part.draw(rng) for part in parts)

    @cached_property
    def num_questions(self) -> int:
        """Count the questions it stands for: `(a|b) (c|d|)` has 6."""
        return sum(
            math.prod(1 if isinstance(part, str) else part.num_questions for part in parts)
            for parts in self.alternatives
        )

    @cached_property
    def pattern(self) -> str:
        """Return a regular expression for all of them as `normalise` spells them, spaces being optional."""
        branches = ("".join(_part_pattern(part) for part in parts) for parts in self.alternatives)
        return f"(?:{'|'.join(branches)})"


def _part_pattern(part: str | Phrasing) -> str:
    if isinstance(part, Phrasing):
        return part.pattern
    words = re.split(r"(\s+)", part)
    return "".join(" *" if word.isspace() else re.escape(normalise(word)) for word in words if word)


def normalise(text: str) -> str:
    """Return `text` in lower case, without punctuation, words one space apart: two alike are one question."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


def load_toml(name: str) -> dict[str, object]:
    """Read one of the corpus's TOML files, named relative to this folder."""
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


class Grammar:
    """Parses phrasings, with the lists that they may refer to."""

    def __init__(self, lists: Mapping[str, Sequence[str]]) -> None:
        self._lists: dict[str, Phrasing] = {}
        for name, entries in lists.items():
            self._lists[name] = self.parse("|".join(entries))

    def parse(self, text: str) -> Phrasing:
        """Parse one phrasing. Raises ValueError if a bracket is left open or a list is unknown."""
        tokens = _TOKEN.findall(text)[::-1]
        phrasing = self._parse_alternatives(tokens)
        if tokens:
            raise ValueError(f"unbalanced brackets in {text!r}")
        return phrasing

    def _parse_alternatives(self, tokens: list[str]) -> Phrasing:
        """Consume `tokens` (last one first) up to the bracket that closes this group, or to the end."""
        alternatives: list[tuple[str | Phrasing, ...]] = []
        parts: list[str | Phrasing] = []
        while tokens and tokens[-1] != ")":
            token = tokens.pop()
            if token == "|":
                alternatives.append(tuple(parts))
                parts = []
            else:
                parts.append(self._parse_part(token, tokens))
        alternatives.append(tuple(parts))
        return Phrasing(tuple(alternatives))

    def _parse_part(self, token: str, tokens: list[str]) -> str | Phrasing:
        if token.startswith("{"):
            if token[1:-1] not in self._lists:
                raise ValueError(f"no list is named {token}")
            return self._lists[token[1:-1]]
        if token != "(":
            return token
        group = self._parse_alternatives(tokens)
        if not tokens:
            raise ValueError("a bracket is left open")
        tokens.pop()
        return group
