"""Roughens a tidy question into what people type: synonyms, greetings, errors, case, punctuation (pure)."""

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from demo.corpus.intents import Corpus

_ASKING = re.compile(
    r"(what|who|whose|how|why|when|where|which|is|are|am|do|does|did|can|could|may|should|must|will|would|have|has)\b"
)
_NAMES = re.compile(r"\b(murmur|discord|matrix|petals|gpu|kv|dht|windows|linux|python|wsl)\b")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def vary(question: str, corpus: Corpus, rng: random.Random) -> str:
    """Return `question` as somebody might type it; a bare command stays as it is."""
    if question.startswith(("/", "!")) and " " not in question:
        return question
    if rng.random() < 0.35:
        question = _swap_words(question, corpus.swaps, rng)
    question = _surround(question, corpus, rng)
    if rng.random() < 0.15:
        question = _mistype(question, rng)
    question = _punctuate(_change_case(question, rng), rng)
    return f"{rng.choice(corpus.names)}: {question}" if rng.random() < 0.04 else question


@lru_cache(maxsize=256)
def _word(text: str) -> re.Pattern[str]:
    # /stop, --claim and ./murmur are commands, not words.
    return re.compile(rf"(?<![\w/!.-]){re.escape(text)}(?![\w.-])")


def _swap_words(question: str, swaps: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    for word, others in swaps.items():
        if word in question and rng.random() < 0.4:
            question = _word(word).sub(rng.choice(others), question, count=1)
    return question


def _surround(question: str, corpus: Corpus, rng: random.Random) -> str:
    if rng.random() < 0.18:
        question = rng.choice(corpus.before) + question
    if rng.random() < 0.12:
        question += rng.choice(corpus.after)
    return question


def _mistype(question: str, rng: random.Random) -> str:
    """Make one or two typing errors in words of four letters and more."""
    words = question.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    for i in rng.sample(long, min(len(long), rng.choice((1, 1, 1, 2)))):
        words[i] = _mistype_word(words[i], rng)
    return " ".join(words)


def _mistype_word(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    return word[:at] + _neighbour(word[at], rng) + word[at + 1 :]


def _neighbour(letter: str, rng: random.Random) -> str:
    """Return the key to the left or right of `letter`; anything that is on no row stays."""
    for row in _KEYBOARD:
        if letter in row:
            at = row.index(letter)
            return rng.choice(row[max(at - 1, 0) : at] + row[at + 1 : at + 2])
    return letter


def _change_case(question: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.45:
        question = question[:1].upper() + question[1:]
        question = re.sub(r"\bi\b", "I", question)
        return question.replace("murmur", "Murmur") if "./murmur" not in question else question
    if chance < 0.48:
        return question if "/" in question else question.upper()
    if chance < 0.58:
        return question if "/" in question else _NAMES.sub(_proper, question)
    return question


def _proper(match: re.Match[str]) -> str:
    word = match.group()
    return word.upper() if len(word) <= 3 else word.capitalize()


def _punctuate(question: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.1:
        question = question.replace("'", "")
    if question.endswith(("?", "!", ".")):
        return question
    if _ASKING.match(question.lower()) and chance < 0.6:
        return question + rng.choice(("?", "?", "?", "?", "?", " ?", "??", "?!"))
    return question + rng.choice(("", "", "", "", ".", ".", "!", "?", "..."))
