"""Rules 12 and 13: what may be sent, under which number, and when credit is asked for."""

from typing import Any

from swarm.history import History
from swarm.outbox import Outbox, Window
from swarm.wire.messages import Step, StepResult
from swarm.wire.tags import TagChain


class Sender:
    """An outbox with its history, on a route with plenty of credit."""

    def __init__(self, window: Window | None = None, credit: int = 1000) -> None:
        self.outbox = Outbox(window or Window())
        self.history = History(TagChain(b"k" * 16))
        self.outbox.credit = {0: credit, 1: 1000}

    def add(self, num_tokens: int = 1, rows: int = 1) -> int:
        number = self.outbox.add(len(self.history), num_tokens, rows)
        self.history.append(range(len(self.history), len(self.history) + num_tokens))
        return number

    def send(self) -> list[Step]:
        return list(self.outbox.next_steps(1, 0, self.history))

    def answer(self, step: Step, rows: int = 1, **changes: Any) -> int | None:
        fields: dict[str, Any] = {
            "position": step.position,
            "num_tokens": step.num_tokens,
            "tag": step.tag,
            **changes,
        }
        taken = self.outbox.take(StepResult(epoch=1, seq=step.seq, **fields), rows, self.history)
        return None if taken is None else taken.number


def test_steps_go_out_in_order_under_rising_numbers() -> None:
    sender = Sender()
    sender.add(2)
    sender.add(1)
    assert [(step.seq, step.position, step.num_tokens) for step in sender.send()] == [(0, 0, 2), (1, 2, 1)]


def test_a_step_is_sent_once() -> None:
    sender = Sender()
    sender.add()
    sender.send()
    assert sender.send() == []


def test_a_step_names_the_contents_before_and_after_it() -> None:
    sender = Sender()
    sender.add(2)
    (step,) = sender.send()
    assert (step.base_tag, step.tag) == (0, sender.history.tag(2))


def test_no_more_steps_are_in_flight_than_the_window_has() -> None:
    sender = Sender(Window(steps=2))
    for _ in range(3):
        sender.add()
    assert len(sender.send()) == 2


def test_no_more_tokens_are_in_flight_than_the_window_has() -> None:
    sender = Sender(Window(tokens=4))
    sender.add(3)
    sender.add(3)
    assert len(sender.send()) == 1


def test_a_step_above_the_window_goes_out_alone() -> None:
    sender = Sender(Window(tokens=4))
    sender.add(9)
    assert len(sender.send()) == 1


def test_nothing_is_sent_above_the_least_credit() -> None:
    sender = Sender(credit=3)
    sender.add(2)
    sender.add(2)
    assert [step.position for step in sender.send()] == [0]


def test_credit_is_not_awaited_while_a_step_is_in_flight() -> None:
    # Two sessions could otherwise each hold what the other waits for.
    sender = Sender(credit=3)
    sender.add(2)
    sender.add(2)
    (step,) = sender.send()
    assert sender.outbox.credit_to_ask() is None
    sender.answer(step)
    assert sender.outbox.credit_to_ask() == 4


def test_credit_is_asked_for_once() -> None:
    sender = Sender(credit=0)
    sender.add()
    assert [sender.outbox.credit_to_ask(), sender.outbox.credit_to_ask()] == [1, None]


def test_after_a_refusal_credit_is_asked_for_again() -> None:
    sender = Sender(credit=0)
    sender.add()
    sender.outbox.credit_to_ask()
    sender.outbox.resend()
    assert sender.outbox.credit_to_ask() == 1


def test_an_answer_is_known_by_position_length_tag_and_rows() -> None:
    sender = Sender()
    number = sender.add(2)
    (step,) = sender.send()
    assert sender.answer(step, tag=step.tag ^ 1) is None
    assert sender.answer(step, position=1) is None
    assert sender.answer(step, num_tokens=1) is None
    assert sender.answer(step, rows=2) is None
    assert sender.answer(step) == number


def test_an_answer_counts_whichever_sending_it_answers() -> None:
    sender = Sender()
    number = sender.add()
    (first,) = sender.send()
    sender.outbox.resend()
    sender.send()
    assert sender.answer(first) == number


def test_an_answer_to_a_step_that_waits_to_be_sent_again_is_ignored() -> None:
    sender = Sender()
    sender.add()
    (step,) = sender.send()
    sender.outbox.resend()
    assert sender.answer(step) is None


def test_the_answer_of_a_rewritten_step_is_ignored() -> None:
    sender = Sender()
    sender.add()
    (old,) = sender.send()
    sender.outbox.drop_above(0)
    sender.history.truncate(0)
    sender.outbox.add(0, 1, 1)
    sender.history.append([77])
    sender.send()
    assert sender.answer(old) is None


def test_a_resend_has_the_next_attempt_and_new_numbers() -> None:
    sender = Sender()
    sender.add()
    sender.add()
    sender.send()
    sender.outbox.resend()
    assert [(step.attempt, step.seq) for step in sender.send()] == [(1, 2), (1, 3)]


def test_a_new_epoch_begins_anew_and_has_no_credit() -> None:
    sender = Sender()
    sender.add()
    sender.send()
    sender.outbox.restart()
    assert sender.outbox.credit == {}
    sender.outbox.credit = {0: 9}
    assert [(step.attempt, step.seq) for step in sender.send()] == [(0, 0)]


def test_a_step_of_no_tokens_is_sent_and_answered() -> None:
    sender = Sender()
    number = sender.add(0, rows=0)
    (step,) = sender.send()
    assert sender.answer(step, rows=0) == number


def test_a_position_inside_an_outstanding_step_is_known() -> None:
    sender = Sender()
    sender.add(3)
    assert [sender.outbox.cuts_through(at) for at in range(4)] == [False, True, True, False]
