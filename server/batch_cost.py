"""What a batch costs beside its rows, in rows, from how long batches took. Pure.

A batch reads all weights once, so its first row costs most and each further one little: on a GPU next to
nothing, on a CPU with a tiny model a tenth of the first. A straight line through the smallest and the largest
batches of late tells how many rows take as long as what comes once a batch.
"""

from dataclasses import dataclass

UNKNOWN_ROWS = 32.0
"""Until batches of different sizes were seen."""
MOST_ROWS = 65536.0
"""When rows cost nothing that can be seen."""
MAX_AGE_S = 60.0
"""A size that is not seen for so long is measured anew, in case something else has spoiled it."""
# Whatever else happens on the machine only makes a batch longer.
_SHORTER, _LONGER = 0.5, 0.02


@dataclass(frozen=True, slots=True)
class _Seen:
    rows: float
    seconds: float
    last_s: float


class BatchCost:
    """How long batches of short works took, by size: a class for each power of two. Times are in seconds."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

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
        )

    def fixed_rows(self, now_s: float) -> float:
        """How many rows take as long as what a batch costs however few it has."""
        late = [seen for _, seen in sorted(self._seen.items()) if now_s - seen.last_s <= MAX_AGE_S]
        if len(late) < 2:
            return UNKNOWN_ROWS
        few, many = late[0], late[-1]
        few_s = min(seen.seconds for seen in late)
        row_s = (many.seconds - few_s) / (many.rows - few.rows)
        fixed_s = max(0.0, few_s - few.rows * row_s)
        return fixed_s / row_s if fixed_s < MOST_ROWS * row_s else MOST_ROWS
