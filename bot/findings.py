"""What `./murmur doctor` has found, one line each. Pure."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "FAILED"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do if it is not well."""

    check: str
    level: Level
    sentence: str

    def __str__(self) -> str:
        return f"{self.level:<8} {self.check}: {self.sentence}"


def ok(check: str, sentence: str) -> Finding:
    """All is well with it."""
    return Finding(check, "ok", sentence)


def warning(check: str, sentence: str) -> Finding:
    """The bot runs, but something is better changed."""
    return Finding(check, "warning", sentence)


def failed(check: str, sentence: str) -> Finding:
    """Something of the bot does not work like that."""
    return Finding(check, "FAILED", sentence)
