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
    kernel = find_kernel(query.device)
    return kernel is not None and bool(kernel.can_take(query, keys, values))


def attend_newest(
    query: Tensor, keys: Tensor, values: Tensor, newest: Sequence[Newest], options: Options, output: Tensor
) -> None:
    """Cache the keys and values of `newest`, and fill in their rows of `output` [rows, heads, value_dim]."""
    table = table_of([[each.numbers for each in newest]])[0]
    table = (table.pin_memory() if query.is_cuda else table).to(query.device, non_blocking=True)
    num_splits = count_splits(newest, query.device)
    attend_rows_of_table(query, keys, values, (table, num_splits), options, output)


def attend_rows_of_table(
    query: Tensor, keys: Tensor, values: Tensor, table: tuple[Tensor, int], options: Options, output: Tensor
) -> None:
    """Do what `attend_newest` does for a `table` [sessions, numbers] on the device and a number of splits."""
    kernel = find_kernel(query.device)
    assert kernel is not None
    asks = (options.scaling, options.softcap, options.sinks, options.key_bias)
    kernel.decode(query, keys, values, *table, *asks, output)


def table_of(numbers: Sequence[Sequence[tuple[int, ...]]]) -> Tensor:
    """Return `numbers` of each layer's sessions, `[layers, sessions, numbers]`, on the CPU."""
    return torch.from_numpy(np.array(numbers, np.int64))


def count_splits(newest: Sequence[Newest], device: torch.device) -> int:
    """Return in how many splits the longest of the sessions attends on `device`."""
    kernel = find_kernel(device)
    assert kernel is not None
    return int(max((each.position - each.visible) // kernel.SPLIT_TOKENS for each in newest)) + 1


@functools.cache
def find_kernel(device: torch.device) -> ModuleType | None:
    """Return the module `decode_kernel` if it works on `device`, else None.

    Triton is not there for every system; it does not know GPUs before Ampere, and needs a C compiler.
    """
    try:
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
            raise NotImplementedError("Triton does not know so old a GPU")
        from server import decode_kernel  # here: a server on a CPU has no Triton, and needs none

        decode_kernel.try_out(device)
    except Exception as error:  # noqa: BLE001 - whatever it is, there is the way without
        reason = str(error).split("\n", 1)[0]
        logger.warning("sessions decode one after the other on this GPU, which is slow: %s", reason)
        return None
    return decode_kernel
