"""Steps that the user asked for and whose outputs have not come: what may be sent, and in which order.

Window: at most so many steps and tokens are in flight. Credit: nothing is sent above the least position
that the hops granted, and credit is awaited only while nothing is in flight; otherwise two sessions could
each hold what the other waits for.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarm.history import History
from swarm.wire.messages import Step, StepResult


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be in flight: steps, and tokens (which stand for bytes)."""

    steps: int = 8
    tokens: int = 2048


@dataclass(slots=True)
class Outstanding:
    """One step `[position, end)` of which the last `rows` outputs are wanted."""

    number: int
    position: int
    num_tokens: int
    rows: int
    is_sent: bool = False
    seq: int = -1
    """Under which it was sent last."""

    @property
    def end(self) -> int:
        """Position behind the step."""
        return self.position + self.num_tokens


@dataclass(slots=True)
class Outbox:
    """The outstanding steps of one session, and the numbers under which they go out."""

    window: Window = field(default_factory=Window)
    attempt: int = 0
    credit: dict[int, int] = field(default_factory=dict)
    _steps: deque[Outstanding] = field(default_factory=deque)
    _next_seq: int = 0
    _next_number: int = 0
    _wanted: int = 0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def oldest_seq(self) -> int:
        """The number under which the step went out whose outputs come next; -1 if it waits to be sent."""
        return self._steps[0].seq if self._steps and self._steps[0].is_sent else -1

    def add(self, position: int, num_tokens: int, rows: int) -> int:
        """Append a step; returns the number under which its outputs are delivered."""
        number, self._next_number = self._next_number, self._next_number + 1
        self._steps.append(Outstanding(number, position, num_tokens, rows))
        return number

    def cuts_through(self, position: int) -> bool:
        """Tell whether `position` lies inside an outstanding step."""
        return any(step.position < position < step.end for step in self._steps)

    def drop_above(self, position: int) -> None:
        """Forget the steps that end above `position`."""
        while self._steps and self._steps[-1].end > position:
            self._steps.pop()

    def clear(self) -> None:
        """Forget all steps."""
        self._steps.clear()

    def restart(self) -> None:
        """A new epoch: numbers begin anew, no hop has granted anything, everything is to be sent."""
        self.credit.clear()
        self.attempt = self._next_seq = self._wanted = 0
        self._unsend()

    def resend(self) -> None:
        """A hop refused a step: send everything again under the next attempt."""
        self.attempt += 1
        self._wanted = 0
        self._unsend()

    def take(self, result: StepResult, num_rows: int, history: History) -> Outstanding | None:
        """Remove and return the oldest step if `result` is its output, whichever sending it answers."""
        if not self._steps or not self._steps[0].is_sent:
            return None
        head = self._steps[0]
        is_it = (result.position, result.num_tokens) == (head.position, head.num_tokens)
        if not is_it or result.tag != history.tag(head.end) or num_rows != min(head.rows, head.num_tokens):
            return None
        return self._steps.popleft()

    def next_steps(self, epoch: int, commit: int, history: History) -> Iterator[Step]:
        """Steps that may be sent now, marked as sent."""
        in_flight = [step for step in self._steps if step.is_sent]
        num_steps, num_tokens = len(in_flight), sum(step.num_tokens for step in in_flight)
        for step in self._steps:
            if step.is_sent:
                continue
            num_steps, num_tokens = num_steps + 1, num_tokens + step.num_tokens
            is_over = num_steps > self.window.steps or num_tokens > self.window.tokens
            if (is_over and num_steps > 1) or step.end > min(self.credit.values()):
                return
            yield self._sent(step, epoch, commit, history)

    def credit_to_ask(self) -> int | None:
        """Position to ask credit for: once, only while nothing is in flight, if the next step lacks it."""
        if not self._steps or self._steps[0].is_sent:
            return None
        position = self._steps[0].end
        if position <= min(self.credit.values()) or position <= self._wanted:
            return None
        self._wanted = position
        return position

    def _sent(self, step: Outstanding, epoch: int, commit: int, history: History) -> Step:
        step.is_sent = True
        step.seq, self._next_seq = self._next_seq, self._next_seq + 1
        return Step(
            epoch=epoch,
            seq=step.seq,
            attempt=self.attempt,
            position=step.position,
            num_tokens=step.num_tokens,
            base_tag=history.tag(step.position),
            tag=history.tag(step.end),
            commit=commit,
            rows=step.rows,
        )

    def _unsend(self) -> None:
        for step in self._steps:
            step.is_sent = False
