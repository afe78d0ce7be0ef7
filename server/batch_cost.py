"""What rows and tokens of prompts cost beside what comes once a batch, from how long batches took. Pure.

A batch reads all weights once, so its first row costs most and each further one less: on a GPU next to
nothing, on a CPU a tenth to a fifth of the first. A straight line through the smallest and the largest
batches of late tells how much comes once a batch, and how much with each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN_ROWS = 32.0
"""Until batches of different sizes, or of prompts, were seen."""
MOST_ROWS = 65536.0
"""When rows cost nothing that can be seen."""
MAX_AGE_S = 60.0
"""A size that is not seen for so long is measured anew, in case something else has spoiled it."""
MIN_SEEN = 3
"""The first batches of a size are longer: memory is found for them, and kernels are made."""
# Whatever else happens on the machine only makes a batch longer.
_SHORTER, _LONGER = 0.5, 0.02
_NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class _Seen:
    rows: float
    seconds: float
    last_s: float
    times: int = 0


class BatchCost:
    """How long batches took. Times are in seconds.

    Of short works by size, a class for each power of two; of prompts what a token adds.
    """

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._prompt_token_s: float | None = None

    def ran(self, rows: int, seconds: float, now_s: float) -> None:
        """Note that a batch of `rows` tokens, short works alone, has taken `seconds`."""
        size = rows.bit_length()
        before = self._seen.get(size)
        if before is None or now_s - before.last_s > MAX_AGE_S:
            before = _Seen(rows, seconds, now_s)
        weight = _SHORTER if seconds * before.rows < before.seconds * rows else _LONGER
        self._seen[size] = _Seen(
            before.rows + weight * (rows - before.rows),
            before.seconds + weight * (seconds - before.seconds),
            now_s,
            before.times + 1,
        )

    def ran_prompt(self, rows: int, prompt_tokens: int, seconds: float, now_s: float) -> None:
        """Note what a batch has taken that also had so many tokens of prompts."""
        fixed_s, row_s = _line(self._late(now_s))
        token_s = max(0.0, seconds - fixed_s - rows * row_s) / prompt_tokens
        before_s = token_s if self._prompt_token_s is None else self._prompt_token_s
        self._prompt_token_s = before_s + _NEWEST * (token_s - before_s)

    def fixed_rows(self, now_s: float) -> float:
        """How many rows take as long as what a batch costs however few it has."""
        late = self._late(now_s)
        return UNKNOWN_ROWS if len(late) < 2 else _times(*_line(late))

    def prompt_tokens(self, rows: int, now_s: float) -> float:
        """How many tokens of prompts take as long as a batch of `rows` without them."""
        late = self._late(now_s)
        if not late or self._prompt_token_s is None:
            return UNKNOWN_ROWS
        fixed_s, row_s = _line(late)
        return _times(fixed_s + rows * row_s, self._prompt_token_s)

    def _late(self, now_s: float) -> list[_Seen]:
        """What was seen often enough, and of late; the smallest batches first."""
        seen = [self._seen[size] for size in sorted(self._seen)]
        return [one for one in seen if one.times >= MIN_SEEN and now_s - one.last_s <= MAX_AGE_S]


def _line(late: Sequence[_Seen]) -> tuple[float, float]:
    """Seconds that come once a batch, and with each row; batches of one size cost nothing by the row."""
    if not late:
        return 0.0, 0.0
    few, many = late[0], late[-1]
    few_s = min([seen.seconds for seen in late])
    row_s = (many.seconds - few_s) / (many.rows - few.rows) if len(late) > 1 else 0.0
    return max(0.0, few_s - few.rows * row_s), row_s


def _times(whole_s: float, part_s: float) -> float:
    return whole_s / part_s if whole_s < MOST_ROWS * part_s else MOST_ROWS
