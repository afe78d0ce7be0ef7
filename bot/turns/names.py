"""Who said what, where several people talk: each question below a line with its author's name. Pure.

A name is data: one short line of letters that nothing breaks out of; and where others may join in, no line
that anybody writes passes for one. How a question is told depends on what came before it, never on what comes
after: so the ids that a session holds stay true, and what has to be told anew is told in the same words.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import msgspec

from bot.words import Origin
from storage.transcript import Question, Said

MOST_LETTERS = 32
MOST_READ = 256
"""Of a name as the platform tells it."""
NOBODY = "somebody"
_SIGNS = " .'-_"
_KINDS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd"})
"""Letters, the marks that many scripts write words with, and digits."""
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159"
    "\U000e0100-\U000e01ef]"
)
"""Letters, marks and signs that nobody sees: without them two people of one name look like two."""
_OPENS = re.compile("[\\[\ufe47\uff3b]")
"""Brackets, as wide or turned as they may be: only such lines have to be looked at closely."""
_LABEL = re.compile(r"\s*\[+[^\[\]]*\]+\s*:")
_UNSEEN = frozenset({"Cc", "Cf", "Cn"})
"""What is no character is not seen either; the tokenizer leaves some of it out."""


def as_told(turns: Sequence[Said]) -> list[str]:
    """What the model is told of each question on a path, which begins where the conversation does.

    Questions of one person have no labels. From the first one of somebody else on, each is labelled. Lines
    that look like a label are quoted before that, too, unless it is a chat of two: others may join in later.
    """
    names: dict[int, str] = {}
    return [_told(said.question, names) for said in turns]


def _told(question: Question, names: dict[int, str]) -> str:
    """One question; `names` are those of all who have asked so far, and its author is added."""
    origin = msgspec.json.decode(question.origin, type=Origin) if question.origin else None
    if question.prompt and question.account_id not in names:
        names[question.account_id] = _told_apart(safe_name(origin.author.name if origin else ""), names)
    if question.prompt and len(names) > 1:
        return labelled(names[question.account_id], question.prompt)
    is_direct = origin is not None and origin.where.kind == "direct"
    return question.prompt if is_direct else quoted(question.prompt)


def labelled(name: str, text: str) -> str:
    """Text below its author's name."""
    return f"[{name}]:\n{quoted(text)}"


def quoted(text: str) -> str:
    """Text, of which those lines are quoted that look like somebody's name."""
    lines = text.splitlines(keepends=True)
    return "".join(f"> {line}" if is_like_label(line) else line for line in lines)


def is_like_label(line: str) -> bool:
    """A reader may take this line for somebody's name."""
    if _OPENS.search(line) is None:
        return False
    plain = _BLANK.sub("", unicodedata.normalize("NFKC", line))
    return _LABEL.match("".join(it for it in plain if unicodedata.category(it) not in _UNSEEN)) is not None


def safe_name(name: str) -> str:
    """A name as one short line of letters, digits and a few signs; "somebody" if nothing is left of it."""
    plain = unicodedata.normalize("NFKC", name[:MOST_READ])
    spaced = " ".join("".join(_kept(_BLANK.sub("", plain))).split())
    short = spaced[:MOST_LETTERS].strip()
    return short if any(map(str.isalnum, short)) else NOBODY


def _kept(name: str) -> Iterator[str]:
    for letter in name:
        if letter in _SIGNS or unicodedata.category(letter) in _KINDS:
            yield letter
        elif letter.isspace():
            yield " "


def _told_apart(name: str, names: dict[int, str]) -> str:
    """A name that nobody has yet: with a number if need be."""
    taken = {other.casefold() for other in names.values()}
    wanted, number = name, 1
    while wanted.casefold() in taken:
        number += 1
        wanted = f"{name[: MOST_LETTERS - len(f' {number}')].rstrip()} {number}"
    return wanted
