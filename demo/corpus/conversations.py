"""Draws whole conversations: turns of question and answer, with or without a system prompt (pure)."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from demo.corpus.grammar import normalise
from demo.corpus.intents import Corpus
from demo.corpus.variation import vary

_NUM_TURNS = (1, 2, 3, 4)
_TURN_WEIGHTS = (55, 24, 13, 8)
# The world outside Murmur is larger than Murmur: as many questions as this many intents have.
_UNKNOWN_WEIGHT = 16


@dataclass(frozen=True)
class Turn:
    """A question, its intent, and the answer."""

    question: str
    intent: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Turns in order; `system` is empty when there is no system prompt."""

    system: str
    turns: tuple[Turn, ...]


class Conversations:
    """An endless, reproducible stream of conversations that contain none of the `withheld` questions."""

    def __init__(self, corpus: Corpus, rng: random.Random, withheld: Iterable[str]) -> None:
        self._corpus = corpus
        self._rng = rng
        self._withheld = frozenset(map(normalise, withheld))
        self._names = [name for name, intent in corpus.intents.items() if intent.questions]
        self._weights = [_UNKNOWN_WEIGHT if name == "unknown" else 1 for name in self._names]

    def __iter__(self) -> Iterator[Conversation]:
        while True:
            yield self.draw(self._rng.choices(_NUM_TURNS, _TURN_WEIGHTS)[0])

    def draw(self, num_turns: int) -> Conversation:
        """Return a conversation of `num_turns` turns."""
        system = self._rng.choice(self._corpus.systems) if self._rng.random() < 0.25 else ""
        turns: list[Turn] = []
        while len(turns) < num_turns:
            turn = self._draw_turn(turns)
            if normalise(turn.question) not in self._withheld:
                turns.append(turn)
        return Conversation(system, tuple(turns))

    def _draw_turn(self, turns: list[Turn]) -> Turn:
        if turns and self._rng.random() < 0.06:
            question = vary(self._corpus.draw_repeat(self._rng), self._corpus, self._rng)
            return Turn(question, turns[-1].intent, turns[-1].answer)
        if turns and self._rng.random() < 0.55:
            suited = [rule for rule in self._corpus.follow_ups if turns[-1].intent in rule.after]
            if suited:
                rule = self._rng.choice(suited)
                return self._turn(rule.draw(self._rng), rule.means)
        name = self._rng.choices(self._names, self._weights)[0]
        return self._turn(self._corpus.intents[name].draw(self._rng), name)

    def _turn(self, question: str, intent: str) -> Turn:
        question = vary(question, self._corpus, self._rng)
        return Turn(question, intent, self._corpus.intents[intent].answer)
