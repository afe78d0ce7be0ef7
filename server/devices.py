"""Which device computes, what people hear of it, and what they hear when its memory is too small."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from swarm.errors import ConfigError, MurmurError

MAX_REASON_LETTERS = 200
_CUDA = re.compile("cuda(?::([0-9]+))?")
_OF_DEVICE = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_OF_MACHINE = "can't allocate memory"
"""So torch says it of the machine's memory, in a RuntimeError."""


def find_device(name: str) -> torch.device:
    """The device of that name, with its number; `auto` is a GPU where there is one. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        has_cuda: bool = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
        reason = why_there_is_none(name, str(error), has_cuda=has_cuda, num_gpus=torch.cuda.device_count())
        raise ConfigError(f"there is no device {name!r} here: {reason}; use --device cpu") from error


def why_there_is_none(name: str, error: str, *, has_cuda: bool, num_gpus: int) -> str:
    """Why torch cannot compute on `name`, of which it said `error`; `has_cuda` is about torch itself."""
    cuda = _CUDA.fullmatch(name)
    if cuda is None:
        return "it is none of cpu, cuda and cuda:N"
    if not has_cuda:
        return "the torch that is installed is built without CUDA"
    if not num_gpus:
        return "torch finds no NVIDIA GPU, or no driver for it that is new enough (see nvidia-smi)"
    if cuda[1] and int(cuda[1][:9]) >= num_gpus:
        return f"the last one is cuda:{num_gpus - 1}"
    return f"torch cannot use it ({error.strip().partition(chr(10))[0][:MAX_REASON_LETTERS]})"


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def describe(device: torch.device, num_threads: int) -> str:
    """What computes, for example `cuda:0 (NVIDIA H100)` or `the CPU with 4 threads`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"the CPU with {num_threads} thread{'' if num_threads == 1 else 's'}"
    return str(device)


def computing_on(device: torch.device, num_threads: int, cores: int) -> str:
    """The sentence that says what computes, and how it could be more of a CPU that has `cores`."""
    sentence = f"computing on {describe(device, num_threads)}"
    if device.type == "cpu" and num_threads < cores:
        return f"{sentence}; --threads N takes more of its {cores} cores"
    return sentence


@contextmanager
def enough_memory(device: torch.device, num_blocks: int, what_makes_smaller: str) -> Iterator[None]:
    """Raises ConfigError, with what to do, if memory is too small for what is done with the blocks inside."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, MurmurError) as error:
        place = _too_small(error, device)
        if place is None:
            raise
        counted = f"{num_blocks} blocks" if num_blocks > 1 else "1 block"
        remedies = ["free some"]
        remedies += ["host fewer with --num-blocks or --blocks"] if num_blocks > 1 else []
        remedies += [f"add {what_makes_smaller}"] if what_makes_smaller else []
        raise ConfigError(f"not enough memory on {place} for {counted}: {', or '.join(remedies)}") from error


def is_about_memory(error: BaseException) -> bool:
    """Tell whether `error` says that memory was short, of a device or of the machine."""
    return _too_small(error, torch.device("cpu")) is not None


def _too_small(error: BaseException | None, device: torch.device) -> str | None:
    """Where memory was short, if that is what `error` is about or was caused by."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or _says(error, *_OF_DEVICE):
            return str(device)
        is_errno = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if isinstance(error, MemoryError) or is_errno or _says(error, _OF_MACHINE):
            return "this machine"
        error = error.__cause__
    return None


def _says(error: BaseException, *words: str) -> bool:
    return isinstance(error, RuntimeError) and any(each in str(error) for each in words)
