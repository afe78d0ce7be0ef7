"""What a session has put in front of the first block: token ids, or hidden states, by position.

From here the client replays when no hop's log covers a gap, so nothing of it is ever dropped.
"""

import math
import secrets
from collections.abc import Callable, Sequence

import torch

Embed = Callable[[list[int], int], torch.Tensor]


class Inputs:
    """The history's inputs. Token ids are kept as ids and embedded when they are needed."""

    def __init__(self, embed: Embed, *, num_ids: int | None = None, hidden_size: int | None = None) -> None:
        """What `embed` cannot take is refused at once if `num_ids` and `hidden_size` say what that is."""
        self._embed = embed
        self._num_ids = num_ids
        self._hidden_size = hidden_size
        self._ids: list[int] = []
        self._hidden: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> list[int]:
        """Token ids by position; -1 where hidden states were given instead."""
        return list(self._ids)

    def append_ids(self, ids: Sequence[int]) -> list[int]:
        """Add tokens; returns their labels for the history's tags.

        Raises ValueError, with nothing added, if one of them is no token of the model.
        """
        if ids and not 0 <= min(ids) <= max(ids) < (self._num_ids or math.inf):
            raise ValueError("these are no token ids of the model")
        self._ids += ids
        return list(ids)

    def append_hidden(self, hidden: torch.Tensor) -> list[int]:
        """Add hidden states `[tokens, hidden]`; returns fresh labels: equal values are not equal steps.

        Raises ValueError, with nothing added, if they are no hidden states of the model.
        """
        size = self._hidden_size or hidden.shape[-1]
        if hidden.dim() != 2 or hidden.shape[1] != size or not hidden.is_floating_point():
            raise ValueError(
                f"hidden states must be floats of shape [tokens, {size}], not {list(hidden.shape)}"
            )
        start = len(self._ids)
        self._ids += [-1] * len(hidden)
        for offset, row in enumerate(hidden.detach()):
            self._hidden[start + offset] = row
        return [secrets.randbits(63) for _ in range(len(hidden))]

    def truncate(self, position: int) -> None:
        """Forget everything from `position` on."""
        for index in range(position, len(self._ids)):
            self._hidden.pop(index, None)
        del self._ids[position:]

    def read(self, start: int, end: int) -> torch.Tensor:
        """Input of the first block for `[start, end)`, `[tokens, hidden]`."""
        return self.later(start, end)()

    def later(self, start: int, end: int) -> Callable[[], torch.Tensor]:
        """What `read` gives now, whatever happens until it is made: a replay need not lie in memory."""
        ids = self._ids[start:end]
        if -1 not in ids:
            return lambda: self._embed(ids, start)
        rows = [self._hidden.get(index) for index in range(start, end)]
        given = list(enumerate(zip(ids, rows, strict=True), start))
        return lambda: torch.stack(
            [self._embed([token], index)[0] if row is None else row for index, (token, row) in given]
        )

    def fork(self, position: int) -> "Inputs":
        """The first `position` inputs."""
        child = Inputs(self._embed, num_ids=self._num_ids, hidden_size=self._hidden_size)
        child._ids = self._ids[:position]
        child._hidden = {index: row for index, row in self._hidden.items() if index < position}
        return child
