"""Whom an admin means: ids and mentions of people, roles, servers, rooms and channels.

@ada:example.org     somebody on Matrix           123456789012345678   somebody or something on Discord
example.org          everybody of a server there  <@123>  <@&123>      a mention of a person or a role there
!abc:example.org     a room there                 <#123>               a channel there
"""

import re

from storage.ledger import Person

MAX_LETTERS = 255
_LINK = "https://matrix.to/#/"
_SERVER = r"(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+(?::[0-9]{1,5})?|[A-Za-z0-9.-]+:[0-9]{1,5}"
_PEOPLE = (
    ("matrix", re.compile(r"(@[^\s:@]+:[^\s:@]\S*)")),
    ("discord", re.compile(r"(?:<@!?)?([0-9]{1,20})>?")),
)
_OTHERS = (
    ("matrix", re.compile(r"(!\S+)")),
    ("matrix", re.compile(f"({_SERVER})")),
    ("discord", re.compile(r"<(?:@&|#)([0-9]{1,20})>")),
)


class Mistaken(Exception):
    """What an admin wanted makes no sense, or cannot be; the message is the sentence to say."""


def read_person(text: str) -> Person:
    """The person that `text` names. Raises Mistaken."""
    person = _read(text, _PEOPLE)
    if person is None:
        raise Mistaken(
            f"`{_safe(text)}` names nobody; write @ada:example.org, or an id or mention of Discord."
        )
    return person


def read_named(text: str) -> Person:
    """Whoever or whatever `text` names. Raises Mistaken."""
    named = _read(text, (*_PEOPLE, *_OTHERS))
    if named is None:
        raise Mistaken(
            f"`{_safe(text)}` names nobody and no place; write @ada:example.org, example.org,"
            " !room:example.org, or an id or mention of Discord."
        )
    return named


def _read(text: str, kinds: tuple[tuple[str, re.Pattern[str]], ...]) -> Person | None:
    text = text.strip().removeprefix(_LINK)
    if len(text) > MAX_LETTERS or not text.isprintable():
        return None
    for platform, pattern in kinds:
        if found := pattern.fullmatch(text):
            return Person(platform, found[1])
    return None


def _safe(text: str) -> str:
    """What somebody typed, short, in one line, and without what would end inline code."""
    return "".join(each if each.isprintable() else "?" for each in text).replace("`", "'")[:40]
