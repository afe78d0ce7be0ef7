"""What the rows of a batch see: a family's mask function, asked for each session alone."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask

from server.attention_kernels import Visible

Device = torch.device | str
MaskFunction = Callable[..., Any]


class Asking(Protocol):
    """Rows of one session: `[position, end)`."""

    @property
    def position(self) -> int:
        """Position of the first row."""

    @property
    def end(self) -> int:
        """Position behind the last row."""


class RaggedMask:
    """A family's mask function, evaluated at each session's own positions, once per batch, on `device`."""

    def __init__(self, mask_function: MaskFunction, use_vmap: bool = False, device: Device = "cpu") -> None:
        self.ndim = 0  # a model that would add something to a mask asks for it first
        self.is_causal = mask_function is causal_mask_function
        self._function = mask_function
        self._use_vmap = use_vmap
        self._device = device
        self._visible: dict[Asking, Visible] = {}

    def visible(self, chunk: Asking, dtype: torch.dtype) -> Visible:
        """Tell which keys the rows of `chunk` see, and keep the answer for the other layers."""
        found = self._visible.get(chunk)
        if found is None:
            found = self._visible[chunk] = self._look(chunk, dtype)
        return found

    def find_window(self, candidates: Iterable[int]) -> int:
        """Return the least of `candidates` that is a window: a row sees at most so many keys back; else 0.

        Asked at a few rows only. That no row ever sees more is checked when keys are read.
        """
        if not self.is_causal:
            for window in sorted(candidates):
                rows = (window, 2 * window - 1, 2 * window, 3 * window + 1)
                if not any(self._sees_before(row, row - window + 1) for row in rows):
                    return window
        return 0

    def _sees_before(self, row: int, key: int) -> bool:
        """Tell whether the row at position `row` sees any key before `key`."""
        return bool(self._allowed(row, 1)[:, :key].any())

    def _look(self, chunk: Asking, dtype: torch.dtype) -> Visible:
        """See every key if causal and one token; nothing to add if causal from 0; else a mask.

        A window hides the oldest keys from all rows: they are left out instead of masked.
        """
        tokens = chunk.end - chunk.position
        if self.is_causal and (tokens == 1 or not chunk.position):
            return Visible(0, None, is_causal=tokens > 1)
        allowed = self._allowed(chunk.position, tokens)
        first = 0 if self.is_causal else int(allowed.any(0).int().argmax())
        allowed = allowed[:, first:]
        if allowed.all():
            return Visible(first, None, is_causal=False)
        hidden = torch.zeros(allowed.shape, dtype=dtype, device=self._device)
        return Visible(first, hidden.masked_fill_(~allowed, torch.finfo(dtype).min), is_causal=False)

    def _allowed(self, position: int, tokens: int) -> Tensor:
        """Return which keys `[0, position + tokens)` the rows from `position` on see, `[tokens, keys]`."""
        allowed: torch.Tensor | None = sdpa_mask(
            batch_size=1,
            q_length=tokens,
            kv_length=position + tokens,
            q_offset=position,
            mask_function=self._function,
            allow_is_causal_skip=False,
            use_vmap=self._use_vmap,
            device=self._device,
        )
        assert allowed is not None
        return allowed[0, 0]
