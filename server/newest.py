"""The newest tokens of sessions attend together on a GPU: who takes part, and what the kernel is told."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from server.attention_kernels import Options
from server.kv_extents import Extent

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Newest:
    """One token of one session: `row` of the batch, at `position`.

    It sees the keys from `visible` on that lie in `extent`, which has room for its own.
    """

    row: int
    position: int
    visible: int
    extent: Extent

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the kernel reads."""
        return self.row, self.position, self.visible, *self.extent.addresses


def can_attend_together(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Tell whether `attend_newest` is for a batch's `query`, `keys` and `values` [heads, rows, dim]."""
    if not query.is_cuda:
        return False
    kernel = find_kernel()
    return kernel is not None and bool(kernel.can_take(query, keys, values))


def attend_newest(
    query: Tensor, keys: Tensor, values: Tensor, newest: Sequence[Newest], options: Options, output: Tensor
) -> None:
    """Cache the keys and values of `newest`, and fill in their rows of `output` [rows, heads, value_dim]."""
    table = table_of([[each.numbers for each in newest]])[0]
    table = (table.pin_memory() if query.is_cuda else table).to(query.device, non_blocking=True)
    attend_rows_of_table(query, keys, values, (table, count_splits(newest)), options, output)


def attend_rows_of_table(
    query: Tensor, keys: Tensor, values: Tensor, table: tuple[Tensor, int], options: Options, output: Tensor
) -> None:
    """Do what `attend_newest` does for a `table` [sessions, numbers] on the device and a number of splits."""
    kernel = find_kernel()
    assert kernel is not None
    asks = (options.scaling, options.softcap, options.sinks, options.key_bias)
    kernel.decode(query, keys, values, *table, *asks, output)


def table_of(numbers: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
    """Return `numbers` of each layer's sessions, `[layers, sessions, numbers]`, on the CPU."""
    return torch.from_numpy(np.array(numbers, np.int64))


def count_splits(newest: Sequence[Newest]) -> int:
    """Return in how many splits the longest of the sessions attends."""
    kernel = find_kernel()
    assert kernel is not None
    return int(max((each.position - each.visible) // kernel.SPLIT_TOKENS for each in newest)) + 1


@functools.cache
def find_kernel() -> ModuleType | None:
    """Return the module `decode_kernel`, or None if Triton is not there."""
    try:
        from server import decode_kernel  # here: a server on a CPU has no Triton, and needs none
    except ImportError:
        logger.warning("Triton is not installed: sessions attend one after the other on this GPU")
        return None
    return decode_kernel
