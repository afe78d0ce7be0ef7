"""Reads the held-out questions: what the demo model is examined with and never trained on."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Question:
    """A question and the intent whose answer is right."""

    text: str
    intent: str


@dataclass(frozen=True)
class Heldout:
    """Single questions, and dialogues whose later questions depend on the earlier answers."""

    questions: tuple[Question, ...]
    dialogues: tuple[tuple[Question, ...], ...]

    def all_questions(self) -> Iterator[str]:
        """Yield every question that must not be trained on: dialogues may open with a common one."""
        yield from (question.text for question in self.questions)
        yield from (question.text for dialogue in self.dialogues for question in dialogue[1:])


def load_heldout() -> Heldout:
    """Read heldout.toml."""
    entries = tomllib.loads(Path(__file__).with_name("heldout.toml").read_text(encoding="utf-8"))
    questions = tuple(
        Question(text, intent) for intent, texts in entries["questions"].items() for text in texts
    )
    dialogues = tuple(tuple(Question(*turn) for turn in entry["turns"]) for entry in entries["dialogue"])
    return Heldout(questions, dialogues)
