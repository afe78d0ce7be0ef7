"""What rows and tokens of prompts cost beside what comes once a batch, from how long batches took. Pure.

A batch reads all weights once, so its first row costs most and each further one less: on a GPU next to
nothing, on a CPU a tenth to a fifth of the first. A straight line through the smallest and the largest
batches of late tells how much comes once a batch, and how much with each row. Batches with prompts have a
line of their own: on a GPU they begin later, for the others are replayed from graphs.
"""

from dataclasses import dataclass

UNKNOWN_ROWS = 32.0
"""Until batches of different sizes, or of prompts, were seen."""
MOST_ROWS = 65536.0
"""When rows cost nothing that can be seen."""
MIN_GROWTH = 1.5
"""Sizes that are nearer to each other count as one: all their difference may be chance."""
MOST_GROWTH = 4.0
"""So many times the largest batch that was seen is believed."""
MAX_AGE = 200
MAX_AGE_S = 10.0
"""A size that none of so many batches had, for so long, is measured anew, lest something else spoiled it:
what looks too long is not chosen again, and would look so for ever."""
MIN_SEEN = 5
"""The first batches of a size are longer: memory is found for them, kernels are made, and on a GPU the fourth
is captured, to be replayed from then on (graphs.py). Of so many the shortest counts."""
BEGIN_SHARE = 0.5
# Whatever else happens on the machine only makes a batch longer; but a prompt's tokens do cost more the more
# come before them.
_SHORTER, _LONGER = 0.5, 0.02
_LONGER_PROMPT = 0.2


@dataclass(frozen=True, slots=True)
class Moment:
    """How many batches have run, and when that was."""

    number: int
    at_s: float

    def is_past(self, then: "Moment") -> bool:
        """Whether what was last seen `then` is to be seen anew now."""
        return self.number - then.number > MAX_AGE and self.at_s - then.at_s > MAX_AGE_S


@dataclass(frozen=True, slots=True)
class _Seen:
    rows: float
    seconds: float
    last: Moment
    times: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds that come once, and with each row. `most_rows` is the largest size behind it."""

    fixed_s: float
    row_s: float
    most_rows: float
    is_sloped: bool
    """Whether several sizes were seen; of a single one all comes once."""


def _size_of(rows: float) -> int:
    """The class of a batch of so many rows: one for each power of two, as there is of graphs."""
    return (int(rows) - 1).bit_length()


class Timings:
    """How long something took by its size."""

    def __init__(self, longer: float = _LONGER) -> None:
        """`longer` is the weight of a batch that took longer than those before."""
        self._longer = longer
        self._seen: dict[int, _Seen] = {}
        self._anew: dict[int, _Seen] = {}
        """What is not known, or not of late: it takes the other's place once it was seen often enough."""

    def ran(self, rows: float, seconds: float, now: Moment) -> None:
        """Note what `rows` have taken; they are at least one."""
        size = _size_of(rows)
        known = self._seen.get(size)
        if known is not None and now.is_past(known.last):
            known = None
        before = known or self._anew.get(size, _Seen(rows, seconds, now))
        shorter, longer = (_SHORTER, self._longer) if known else (1.0, 0.0)
        weight = shorter if seconds * before.rows < before.seconds * rows else longer
        after = _Seen(
            before.rows + weight * (rows - before.rows),
            before.seconds + weight * (seconds - before.seconds),
            now,
            before.times + 1,
        )
        if after.times >= MIN_SEEN:
            self._seen[size] = after
            self._anew.pop(size, None)
        else:
            self._anew[size] = after

    def knows(self, rows: float, now: Moment) -> bool:
        """Whether so many rows were seen often enough, and of late."""
        seen = self._seen.get(_size_of(rows))
        return seen is not None and not now.is_past(seen.last)

    def line(self) -> Line | None:
        """Through what was seen often enough and of late; None if there is nothing."""
        seen = [self._seen[size] for size in sorted(self._seen)]
        if not seen:
            return None
        newest = max([one.last for one in seen], key=lambda last: last.number)
        late = [one for one in seen if not newest.is_past(one.last)]
        few, many = late[0], late[-1]
        few_s = min([one.seconds for one in late])
        if many.rows < MIN_GROWTH * few.rows:
            return Line(few_s, 0.0, few.rows, is_sloped=False)
        row_s = (many.seconds - few_s) / (many.rows - few.rows)
        return Line(max(0.0, few_s - few.rows * row_s), row_s, many.rows, is_sloped=True)


class BatchCost:
    """What the scheduler asks before it fills a batch. Times are in seconds."""

    def __init__(self) -> None:
        self._short = Timings()
        self._prompts = Timings(_LONGER_PROMPT)
        self._number = 0
        self._num_alone: dict[int, tuple[int, Moment]] = {}

    def ran(self, rows: float, prompt_tokens: float, seconds: float, now_s: float) -> None:
        """Note what a batch of `rows` of short works, and so many tokens of prompts, has taken."""
        self._number += 1
        now = Moment(self._number, now_s)
        if not prompt_tokens:
            self._short.ran(max(1.0, rows), seconds, now)
            return
        short = self._short.line()
        rows_s = 0.0 if short is None else rows * short.row_s
        self._prompts.ran(max(1.0, prompt_tokens), max(0.0, seconds - rows_s), now)

    def wants_alone(self, rows: float, now_s: float) -> bool:
        """Whether a batch of `rows` is to run without prompts, that one may know what it takes.

        Else nobody ever would, as long as there are prompts. So often and no more it is wanted of a size.
        """
        rows, now = max(1.0, rows), Moment(self._number, now_s)
        if self._short.knows(rows, now):
            return False
        size = _size_of(rows)
        times, last = self._num_alone.get(size, (0, now))
        if now.is_past(last):
            times = 0
        if times < MIN_SEEN:
            self._num_alone[size] = times + 1, now
        return times < MIN_SEEN

    def fixed_rows(self) -> float:
        """How many rows take as long as what a batch costs however few it has."""
        line = self._short.line()
        if line is None or not line.is_sloped:
            return UNKNOWN_ROWS
        return min(_times(line.fixed_s, line.row_s), max(UNKNOWN_ROWS, MOST_GROWTH * line.most_rows))

    def prompt_tokens(self, rows: float, spare: float) -> float:
        """How many tokens of prompts make a batch of `rows` longer by the share `spare`.

        What comes once a batch with prompts, and not without, is part of that share; but where little or
        nothing would be left, the tokens may take half as long again.
        """
        short, prompts = self._short.line(), self._prompts.line()
        if short is None or prompts is None:
            return UNKNOWN_ROWS
        fixed_s, token_s = prompts.fixed_s, prompts.row_s
        if not prompts.is_sloped:
            fixed_s = min(short.fixed_s, prompts.fixed_s)
            token_s = (prompts.fixed_s - fixed_s) / prompts.most_rows
        without_s, begin_s = short.fixed_s + rows * short.row_s, max(0.0, fixed_s - short.fixed_s)
        tokens = _times(max(spare * without_s - begin_s, BEGIN_SHARE * begin_s), token_s)
        return min(tokens, max(UNKNOWN_ROWS, MOST_GROWTH * prompts.most_rows))


def _times(whole_s: float, part_s: float) -> float:
    return whole_s / part_s if whole_s < MOST_ROWS * part_s else MOST_ROWS
