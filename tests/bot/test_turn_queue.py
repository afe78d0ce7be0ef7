"""One answer at a time in a conversation and for a person; nothing that could run waits, nothing is lost."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bot.turns.queue import Bounds, Entry, TurnQueue

BOUNDS = Bounds(running=3, waiting=6, waiting_in_conversation=3, running_of_person=1, waiting_of_person=2)


class Queueing(RuleBasedStateMachine):
    """Turns that come and go, beside a list of what runs and waits that is kept as simply as it can be."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = TurnQueue(BOUNDS)
        self.running: list[Entry] = []
        self.waiting: list[Entry] = []
        self.started: Counter[str] = Counter()
        self.said: dict[str, int] = {}
        self.num_turns = 0

    @rule(conversation_id=st.integers(1, 4), account_id=st.integers(1, 4), must_wait=st.booleans())
    def offer(self, conversation_id: int, account_id: int, must_wait: bool) -> None:
        self.num_turns += 1
        entry = Entry(f"turn {self.num_turns}", conversation_id, account_id)
        is_full = self.is_full_for(entry)
        outcome = self.queue.offer(entry, must_wait=must_wait)
        if self.could_run(entry, self.waiting):
            assert outcome == "runs"
            self.start(entry)
        elif must_wait or not is_full:
            assert outcome == "waits"
            self.waiting.append(entry)
        else:
            assert outcome in ("conversation full", "person busy", "bot full")

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data())
    def offer_again(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running + self.waiting))
        assert self.queue.offer(entry) == ("runs" if entry in self.running else "waits")

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running))
        self.running.remove(entry)
        self.start_those(self.queue.leave(entry.turn_id))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        self.start_those(self.queue.leave(entry.turn_id))
        assert self.queue.num_ahead(entry.turn_id) == 0

    @rule()
    def leave_unknown(self) -> None:
        assert self.queue.leave("nobody") == []

    def start_those(self, turn_ids: list[str]) -> None:
        for turn_id in turn_ids:
            entry = next(each for each in self.waiting if each.turn_id == turn_id)
            assert self.could_run(entry, self.waiting[: self.waiting.index(entry)])
            earlier = self.waiting[: self.waiting.index(entry)]
            assert not any(self.could_run(each, self.waiting[: self.waiting.index(each)]) for each in earlier)
            self.waiting.remove(entry)
            self.start(entry)

    def start(self, entry: Entry) -> None:
        self.running.append(entry)
        self.started[entry.turn_id] += 1
        assert self.queue.num_ahead(entry.turn_id) == 0

    def could_run(self, entry: Entry, earlier: list[Entry]) -> bool:
        """It may run, and nobody in its conversation came before it."""
        return (
            len(self.running) < BOUNDS.running
            and all(each.conversation_id != entry.conversation_id for each in self.running + earlier)
            and all(each.account_id != entry.account_id for each in self.running)
        )

    def is_full_for(self, entry: Entry) -> bool:
        in_conversation = sum(each.conversation_id == entry.conversation_id for each in self.waiting)
        of_person = sum(each.account_id == entry.account_id for each in self.waiting)
        return (
            in_conversation >= BOUNDS.waiting_in_conversation
            or of_person >= BOUNDS.waiting_of_person
            or len(self.waiting) >= BOUNDS.waiting
        )

    @invariant()
    def at_most_one_runs_in_a_conversation_and_for_a_person(self) -> None:
        for key in ("conversation_id", "account_id"):
            counts = Counter(getattr(each, key) for each in self.running)
            assert max(counts.values(), default=0) <= 1
        assert len(self.running) <= BOUNDS.running

    @invariant()
    def nothing_is_lost_or_run_twice(self) -> None:
        assert len(self.queue) == len(self.running) + len(self.waiting)
        assert max(self.started.values(), default=0) <= 1
        for conversation_id in range(1, 5):
            in_it = [each.turn_id for each in self.running if each.conversation_id == conversation_id]
            assert self.queue.running_in(conversation_id) == next(iter(in_it), None)
            waiting = [each.turn_id for each in self.waiting if each.conversation_id == conversation_id]
            assert self.queue.waiting_in(conversation_id) == waiting

    @invariant()
    def nothing_waits_that_could_run(self) -> None:
        for place, entry in enumerate(self.waiting):
            assert not self.could_run(entry, self.waiting[:place])

    @invariant()
    def the_place_of_whoever_waits_never_grows(self) -> None:
        for entry in self.waiting:
            ahead = self.queue.num_ahead(entry.turn_id)
            assert 1 <= ahead <= self.said.get(entry.turn_id, ahead)
            self.said[entry.turn_id] = ahead

    def teardown(self) -> None:
        """Everything that was taken in runs in the end."""
        while self.running:
            self.end_first()
        assert not self.waiting
        assert len(self.queue) == 0

    def end_first(self) -> None:
        entry = self.running.pop(0)
        self.start_those(self.queue.leave(entry.turn_id))
        self.the_place_of_whoever_waits_never_grows()


TestQueueing = Queueing.TestCase
TestQueueing.settings = settings(max_examples=60, stateful_step_count=40)


def queue_of(*entries: tuple[int, int], bounds: Bounds = BOUNDS) -> TurnQueue:
    """Turns 0, 1, ... of (conversation, person)."""
    queue = TurnQueue(bounds)
    for number, (conversation_id, account_id) in enumerate(entries):
        queue.offer(Entry(f"{number}", conversation_id, account_id), must_wait=True)
    return queue


def test_a_turn_that_was_offered_twice_runs_once() -> None:
    queue = queue_of((1, 1))
    assert queue.offer(Entry("0", 1, 1)) == "runs"
    assert len(queue) == 1
    assert queue.leave("0") == []
    assert len(queue) == 0


def test_people_in_one_conversation_take_turns_in_the_order_in_which_they_asked() -> None:
    queue = queue_of((1, 1), (1, 2), (1, 3))
    assert [queue.num_ahead(turn_id) for turn_id in "012"] == [0, 1, 2]
    assert queue.leave("0") == ["1"]
    assert [queue.num_ahead(turn_id) for turn_id in "12"] == [0, 1]
    assert queue.leave("1") == ["2"]


def test_a_person_has_one_answer_at_a_time_wherever_it_was_asked_for() -> None:
    queue = queue_of((1, 1), (2, 1), (2, 2))
    assert queue.num_ahead("1") == 1
    assert queue.leave("0") == ["1"]
    assert queue.leave("1") == ["2"]


def test_whoever_need_not_wait_overtakes() -> None:
    queue = queue_of((1, 1), (2, 1))
    assert queue.offer(Entry("2", 3, 3)) == "runs"


def test_nobody_overtakes_in_a_conversation_even_if_the_one_before_must_wait() -> None:
    queue = queue_of((1, 1), (2, 1))
    assert queue.offer(Entry("2", 2, 2)) == "waits"
    assert queue.num_ahead("2") == 1


def test_giving_up_lets_those_behind_run() -> None:
    queue = queue_of((1, 1), (2, 1), (2, 2))
    assert queue.leave("1") == ["2"]


@pytest.mark.parametrize(
    ("entries", "offered", "outcome"),
    [
        ([(1, 1), (1, 2), (1, 3), (1, 4)], (1, 5), "conversation full"),
        ([(1, 1), (2, 1), (3, 1)], (4, 1), "person busy"),
        ([(1, 1), (2, 2), (3, 3), *((each, each) for each in range(4, 10))], (10, 10), "bot full"),
    ],
)
def test_who_is_refused_is_told_why(
    entries: list[tuple[int, int]], offered: tuple[int, int], outcome: str
) -> None:
    queue = queue_of(*entries)
    assert queue.offer(Entry("late", *offered)) == outcome
    assert queue.offer(Entry("accepted before", *offered), must_wait=True) == "waits"


def test_with_a_full_bot_the_place_is_that_among_all_who_wait() -> None:
    queue = queue_of((1, 1), (2, 2), (3, 3), (4, 4), (5, 5))
    assert [queue.num_ahead(turn_id) for turn_id in "34"] == [1, 2]
    assert queue.leave("1") == ["3"]
    assert queue.num_ahead("4") == 1
    assert queue.leave("0") == ["4"]


def test_the_place_does_not_grow_when_somebody_related_overtakes() -> None:
    queue = queue_of((1, 1), (1, 2))
    assert queue.num_ahead("1") == 1
    assert queue.offer(Entry("2", 2, 2)) == "runs"
    assert queue.num_ahead("1") == 1


def test_a_persons_turns_are_told_apart_from_those_of_others() -> None:
    queue = queue_of((1, 7), (1, 8), (2, 7))
    assert queue.turns_of(7) == (["0"], ["2"])
    assert queue.turns_of(8) == ([], ["1"])
    assert queue.turns_of(9) == ([], [])
    assert queue.num_waiting == 2
