"""What the demo model can be asked: intents with an answer and phrasings, and follow-ups."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from demo.corpus.grammar import Grammar, Phrasing, load_toml

_FOLDER = Path(__file__).parent
_NUMBERS = [*map(str, range(2, 120, 3)), "two", "three", "five", "seven", "ten", "twelve", "a hundred"]
_NUM_NONSENSE = 400
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Intent:
    """One thing to ask, its canonical answer, and the phrasings of the question."""

    name: str
    area: str
    answer: str
    questions: tuple[Phrasing, ...]

    def draw(self, rng: random.Random) -> str:
        """Return a question of this intent."""
        return _draw(self.questions, rng)


@dataclass(frozen=True)
class FollowUp:
    """Questions that mean `means` when they come after an answer of one of the intents `after`."""

    after: frozenset[str]
    means: str
    questions: tuple[Phrasing, ...]

    def draw(self, rng: random.Random) -> str:
        """Return a follow-up question."""
        return _draw(self.questions, rng)


@dataclass(frozen=True)
class Corpus:
    """Everything that conversations are made of."""

    intents: Mapping[str, Intent]
    follow_ups: tuple[FollowUp, ...]
    repeat: tuple[Phrasing, ...]
    before: Sequence[str]
    after: Sequence[str]
    names: Sequence[str]
    swaps: Mapping[str, Sequence[str]]
    systems: Sequence[str]

    def draw_repeat(self, rng: random.Random) -> str:
        """Return a question that asks for the same answer again."""
        return _draw(self.repeat, rng)


def _draw(questions: Sequence[Phrasing], rng: random.Random) -> str:
    # Broad phrasings come more often than single sentences, but not as often as they are broad.
    weights = [min(question.num_questions, 1000) ** 0.4 for question in questions]
    return " ".join(rng.choices(questions, weights)[0].draw(rng).split())


def load_corpus() -> Corpus:
    """Read the TOML files of this folder. Raises ValueError if one names an unknown intent or list."""
    rules = cast(dict[str, Any], load_toml("grammar.toml"))
    made = {"number": _NUMBERS, "nonsense": _nonsense_words()}
    grammar = Grammar({**made, **rules["lists"]})
    intents = {intent.name: intent for intent in _load_intents(grammar)}
    follow_ups = cast(dict[str, Any], load_toml("follow_ups.toml"))
    return Corpus(
        intents=intents,
        follow_ups=tuple(_follow_up(entry, intents, grammar) for entry in follow_ups["follow_up"]),
        repeat=tuple(map(grammar.parse, follow_ups["repeat"]["questions"])),
        **rules["around"],
        swaps=rules["swaps"],
        systems=rules["personas"]["systems"],
    )


def _load_intents(grammar: Grammar) -> list[Intent]:
    return [
        Intent(name, path.stem, entry["answer"], tuple(map(grammar.parse, entry["questions"])))
        for path in sorted((_FOLDER / "areas").glob("*.toml"))
        for name, entry in cast(dict[str, Any], load_toml(f"areas/{path.name}")).items()
    ]


def _follow_up(entry: dict[str, Any], intents: Mapping[str, Intent], grammar: Grammar) -> FollowUp:
    unknown = {*entry["after"], entry["means"]} - set(intents)
    if unknown:
        raise ValueError(f"follow_ups.toml names unknown intents: {sorted(unknown)}")
    return FollowUp(frozenset(entry["after"]), entry["means"], tuple(map(grammar.parse, entry["questions"])))


def _nonsense_words() -> list[str]:
    """Return words that no language has, always the same ones."""
    rng = random.Random(0)
    return ["".join(rng.choices(_LETTERS, k=rng.randint(3, 9))) for _ in range(_NUM_NONSENSE)]
