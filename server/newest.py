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

LEAST_CAPABILITY = (8, 0)
"""CUDA's name for Ampere."""
SLOW = "sessions decode one after the other on this GPU, which is slow"


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
    if kernel is None or not kernel.can_take(query, keys, values):
        return False
    shapes = (half.shape[::2] for half in (query, keys, values))
    return _works(query.device, query.dtype, *shapes)


def attend_newest(
    query: Tensor, keys: Tensor, values: Tensor, newest: Sequence[Newest], options: Options, output: Tensor
) -> None:
    """Cache the keys and values of `newest`, and fill in their rows of `output` [rows, heads, value_dim]."""
    table = table_of([[each.numbers for each in newest]])[0]
    table = (table.pin_memory() if query.is_cuda else table).to(query.device, non_blocking=True)
    num_splits = count_splits(newest)
    attend_rows_of_table(query, keys, values, (table, num_splits), options, output)


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
def _works(device: torch.device, dtype: torch.dtype, *shapes: tuple[int, int]) -> bool:
    """Try the kernel with heads of `shapes`, numbers and sizes of queries, keys and values.

    Triton knows no GPU before Ampere, and needs a C compiler, and room for a head on the chip.
    """
    kernel = find_kernel()
    assert kernel is not None
    try:
        if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
            raise NotImplementedError("Triton does not know so old a GPU")
        kernel.try_out(
            *(torch.ones((number, 1, size), dtype=dtype, device=device) for number, size in shapes)
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, there is the way without
        logger.warning("%s: %s", SLOW, str(error).split("\n", 1)[0])
        return False
    return True


@functools.cache
def find_kernel() -> ModuleType | None:
    """Return the module `decode_kernel`, or None if Triton is not there."""
    try:
        from server import decode_kernel  # here: a server on a CPU has no Triton, and needs none
    except ImportError as error:
        logger.warning("%s: %s", SLOW, error)
        return None
    return decode_kernel
