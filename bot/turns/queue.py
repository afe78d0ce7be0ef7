"""Whose turn it is: one answer at a time in a conversation and for a person, few that wait. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
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
    """Turns that run and wait, in the order in which they were asked for.

    A turn waits while one that was there before runs or waits in its conversation, or its person has enough
    turns that run, or the bot has. So one that waits can be overtaken by those that it need not wait for.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._running: dict[str, Entry] = {}
        self._waiting: dict[str, Entry] = {}
        self._ahead: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    @property
    def num_waiting(self) -> int:
        """Turns that wait."""
        return len(self._waiting)

    def turns_of(self, account_id: int) -> tuple[list[str], list[str]]:
        """A person's turns: those that run, and those that wait."""
        running = [each.turn_id for each in self._running.values() if each.account_id == account_id]
        waiting = [each.turn_id for each in self._waiting.values() if each.account_id == account_id]
        return running, waiting

    def offer(self, entry: Entry, *, must_wait: bool = False) -> Outcome:
        """Take a turn in, or say why not. With `must_wait` it is never refused: it was accepted before.

        One that is in already stays as it is.
        """
        if entry.turn_id in self._running:
            return "runs"
        if entry.turn_id in self._waiting:
            return "waits"
        if self._may_run(entry):
            self._running[entry.turn_id] = entry
            return "runs"
        reason = None if must_wait else self._why_not(entry)
        if reason is None:
            self._waiting[entry.turn_id] = entry
        return reason or "waits"

    def leave(self, turn_id: str) -> list[str]:
        """A turn has ended, or is not wanted any more; returns those that run from now on."""
        self._running.pop(turn_id, None)
        self._forget_waiting(turn_id)
        started = list(self._startable())
        for entry in started:
            self._forget_waiting(entry.turn_id)
            self._running[entry.turn_id] = entry
        return [entry.turn_id for entry in started]

    def num_ahead(self, turn_id: str) -> int:
        """About how many turns end before a waiting one runs: never more than was said before, 0 if it runs.

        With a full bot that is its place among all that wait, else only what it has to wait for counts.
        """
        entry = self._waiting.get(turn_id)
        if entry is None:
            return 0
        before = self._waiting_before(entry)
        related = sum(_are_related(each, entry) for each in (*self._running.values(), *before))
        is_full = len(self._running) >= self._bounds.running
        ahead = max(1, related, 1 + len(before) if is_full else 0)
        self._ahead[turn_id] = min(ahead, self._ahead.get(turn_id, ahead))
        return self._ahead[turn_id]

    def running_in(self, conversation_id: int) -> str | None:
        """The turn that runs in a conversation."""
        running = (each for each in self._running.values() if each.conversation_id == conversation_id)
        return next((each.turn_id for each in running), None)

    def waiting_in(self, conversation_id: int) -> list[str]:
        """The turns that wait in a conversation."""
        return [each.turn_id for each in self._waiting.values() if each.conversation_id == conversation_id]

    def _may_run(self, entry: Entry) -> bool:
        """Tell whether a turn that is new may run at once."""
        if any(each.conversation_id == entry.conversation_id for each in self._waiting.values()):
            return False
        return _Room(self._bounds, self._running.values()).has_for(entry)

    def _startable(self) -> Iterator[Entry]:
        """Turns that may run now, first come first served."""
        room = _Room(self._bounds, self._running.values())
        for entry in self._waiting.values():
            if room.has_for(entry):
                room.take(entry)
                yield entry
            room.close(entry.conversation_id)

    def _waiting_before(self, entry: Entry) -> list[Entry]:
        waiting = list(self._waiting.values())
        return waiting[: waiting.index(entry)]

    def _forget_waiting(self, turn_id: str) -> None:
        self._waiting.pop(turn_id, None)
        self._ahead.pop(turn_id, None)

    def _why_not(self, entry: Entry) -> Outcome | None:
        conversations = Counter(each.conversation_id for each in self._waiting.values())
        people = Counter(each.account_id for each in self._waiting.values())
        if conversations[entry.conversation_id] >= self._bounds.waiting_in_conversation:
            return "conversation full"
        if people[entry.account_id] >= self._bounds.waiting_of_person:
            return "person busy"
        return "bot full" if len(self._waiting) >= self._bounds.waiting else None


class _Room:
    """What may run beside the turns that do."""

    def __init__(self, bounds: Bounds, running: Iterable[Entry]) -> None:
        self._bounds = bounds
        self._num_running = 0
        self._people: Counter[int] = Counter()
        self._closed: set[int] = set()
        for entry in running:
            self.take(entry)

    def has_for(self, entry: Entry) -> bool:
        """Tell whether the turn may run."""
        return (
            self._num_running < self._bounds.running
            and entry.conversation_id not in self._closed
            and self._people[entry.account_id] < self._bounds.running_of_person
        )

    def take(self, entry: Entry) -> None:
        """It runs."""
        self._num_running += 1
        self._people[entry.account_id] += 1
        self.close(entry.conversation_id)

    def close(self, conversation_id: int) -> None:
        """Nothing more may run in a conversation: what runs or waits there was before it."""
        self._closed.add(conversation_id)


def _are_related(one: Entry, other: Entry) -> bool:
    """One of them waits for the other."""
    return one.conversation_id == other.conversation_id or one.account_id == other.account_id
