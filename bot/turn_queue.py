"""Whose turn it is: one answer at a time in a conversation and for a person, few that wait. Pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["runs", "waits", "conversation full", "person busy", "bot full"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many turns may run and wait."""

    running: int = 50
    waiting: int = 500
    waiting_in_conversation: int = 3
    running_of_person: int = 1
    waiting_of_person: int = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn, the conversation in which it was asked for, and who pays for it."""

    turn_id: str
    conversation_id: int
    account_id: int


class TurnQueue:
    """Turns that run and wait, in the order in which they were asked for."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._running: dict[str, Entry] = {}
        self._waiting: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def offer(self, entry: Entry, *, must_wait: bool = False) -> Outcome:
        """Take a turn in, or say why not. With `must_wait` it is never refused: it was accepted before."""
        if self._may_run(entry, ahead=self._waiting.values()):
            self._running[entry.turn_id] = entry
            return "runs"
        reason = None if must_wait else self._why_not(entry)
        if reason is None:
            self._waiting[entry.turn_id] = entry
        return reason or "waits"

    def leave(self, turn_id: str) -> list[str]:
        """A turn has ended, or is not wanted any more; returns those that run from now on."""
        self._running.pop(turn_id, None)
        self._waiting.pop(turn_id, None)
        started = list(self._startable())
        return [entry.turn_id for entry in started]

    def num_ahead(self, turn_id: str) -> int:
        """How many turns must end before a waiting one runs, at least; 0 if it does not wait."""
        entry = self._waiting.get(turn_id)
        if entry is None:
            return 0
        earlier = list(self._waiting.values())
        before = earlier[: earlier.index(entry)]
        related = [each for each in (*self._running.values(), *before) if _are_related(each, entry)]
        return len(related) or 1 + len(before)

    def running_in(self, conversation_id: int) -> str | None:
        """The turn that runs in a conversation."""
        running = (each for each in self._running.values() if each.conversation_id == conversation_id)
        return next((each.turn_id for each in running), None)

    def waiting_in(self, conversation_id: int) -> list[str]:
        """The turns that wait in a conversation."""
        return [each.turn_id for each in self._waiting.values() if each.conversation_id == conversation_id]

    def _startable(self) -> Iterator[Entry]:
        """Move turns that may run now to those that do, first come first served."""
        passed: list[Entry] = []
        for entry in list(self._waiting.values()):
            if self._may_run(entry, ahead=passed):
                self._running[entry.turn_id] = self._waiting.pop(entry.turn_id)
                yield entry
            else:
                passed.append(entry)

    def _may_run(self, entry: Entry, ahead: object) -> bool:
        if len(self._running) >= self._bounds.running:
            return False
        others = list(self._running.values())
        if any(each.conversation_id == entry.conversation_id for each in (*others, *ahead)):  # type: ignore[misc]
            return False
        return sum(each.account_id == entry.account_id for each in others) < self._bounds.running_of_person

    def _why_not(self, entry: Entry) -> Outcome | None:
        conversations = Counter(each.conversation_id for each in self._waiting.values())
        people = Counter(each.account_id for each in self._waiting.values())
        if conversations[entry.conversation_id] >= self._bounds.waiting_in_conversation:
            return "conversation full"
        if people[entry.account_id] >= self._bounds.waiting_of_person:
            return "person busy"
        return "bot full" if len(self._waiting) >= self._bounds.waiting else None


def _are_related(one: Entry, other: Entry) -> bool:
    """One of them waits for the other."""
    return one.conversation_id == other.conversation_id or one.account_id == other.account_id
