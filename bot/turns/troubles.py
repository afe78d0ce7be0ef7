"""One table of all that can go wrong, and the one sentence that people read about it. Pure.

An error that is not in the table is a mistake of ours: people get an id, the log has the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bot.rendering.counting import counted
from bot.turns.room_line import NoRoom
from bot.words import Refused
from storage.errors import QuotaExceeded, StorageError
from swarm.errors import (
    ContextTooLong,
    MurmurError,
    NoRouteError,
    PeerBusy,
    PeerError,
    SessionLost,
    SwarmTimeout,
)

Kind = Literal["no_route", "full", "too_long", "lost", "slow", "quota", "store", "not_allowed", "internal"]
MAX_NAMED_BLOCKS = 6
EARLIER_COUNTS = (
    "I also count the {} that you had used today before I forgot you; a keyed hash without your name"
    " remembers that until then."
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong, in a sentence. `may_pass` if trying again later may help."""

    kind: Kind
    sentence: str
    may_pass: bool = False
    last_sentence: str = ""
    """In place of the other one when nothing is tried any more, if that tells of trying."""

    @property
    def in_the_end(self) -> str:
        """What people read about it when nothing is tried any more."""
        return self.last_sentence or self.sentence


def trouble_of(error: Exception, error_id: str, next_grant: str = "tomorrow") -> Trouble:
    """What to say about `error`; `next_grant` tells when there is quota again."""
    for kind, describe in _TABLE:
        if isinstance(error, kind):
            return describe(error, next_grant)
    return Trouble("internal", f"Something went wrong here; the operator finds it under {error_id}.")


def _no_route(error: Exception, _: str) -> Trouble:
    missing = error.missing if isinstance(error, NoRouteError) else ()
    blocks = f"blocks {_ranges(missing)} of the model" if missing else "part of the model"
    return Trouble(
        "no_route",
        f"Nobody serves {blocks} right now. I try again for a while; `contribute` tells how to help.",
        may_pass=True,
        last_sentence=f"Nobody serves {blocks} right now; please ask again later."
        " `contribute` tells how to help.",
    )


def _quota(error: Exception, next_grant: str) -> Trouble:
    available, earlier = (error.available, error.used_earlier) if isinstance(error, QuotaExceeded) else (0, 0)
    left, before = counted(available, "credit"), counted(earlier, "credit")
    sentence = f"Your quota is too low for an answer ({left} left); there is more {next_grant}."
    return Trouble("quota", f"{sentence} {EARLIER_COUNTS.format(before)}" if earlier else sentence)


def _says(kind: Kind, sentence: str, *, may_pass: bool = False) -> Callable[[Exception, str], Trouble]:
    return lambda error, next_grant: Trouble(kind, sentence, may_pass)


NOT_ALLOWED = (
    "I have an answer for you that I am not allowed to show where you asked: please ask somewhere else, or"
    " whoever runs that place to let me write there."
)
_TABLE: tuple[tuple[type[Exception], Callable[[Exception, str], Trouble]], ...] = (
    (QuotaExceeded, _quota),
    (NoRouteError, _no_route),
    (NoRoom, _says("full", "All servers were full for too long; please try again in a few minutes.")),
    (PeerBusy, _says("full", "All servers are full right now; I wait for room.", may_pass=True)),
    (ContextTooLong, _says("too_long", "That is longer than this model can take; please shorten it.")),
    (SessionLost, _says("lost", "This conversation was taken over elsewhere; ask again.", may_pass=True)),
    (SwarmTimeout, _says("slow", "The swarm did not answer in time; please try again.", may_pass=True)),
    (PeerError, _says("lost", "A server failed and none could take its place; try again.", may_pass=True)),
    (Refused, _says("not_allowed", NOT_ALLOWED)),
    (StorageError, _says("store", "I cannot write down what you use, so I cannot answer right now.")),
    (MurmurError, _says("slow", "The swarm could not answer; please try again.", may_pass=True)),
)


def _ranges(blocks: tuple[int, ...]) -> str:
    """Block numbers as people write them: `3-5, 9`."""
    ranges: list[list[int]] = []
    for block in sorted(set(blocks)):
        if ranges and block == ranges[-1][1] + 1:
            ranges[-1][1] = block
        else:
            ranges.append([block, block])
    named = [f"{first}-{last}" if first < last else f"{first}" for first, last in ranges]
    return ", ".join(named[:MAX_NAMED_BLOCKS]) + (" and more" if len(named) > MAX_NAMED_BLOCKS else "")
