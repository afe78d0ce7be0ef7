"""One safetensors file: its header, checked before it is believed, and the bytes of single tensors.

The format is eight bytes (length of the header, little endian), a JSON object from tensor names to dtype,
shape and byte range, and the tensors. Nothing is mapped into memory: a mapped file that is cut short later
would kill the process.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.errors import ConfigError

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100_000_000
"""The bound of the safetensors library itself; BLOOM-176B in one file would need less than 1 MB."""

MAX_DIMENSIONS = 8

DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}
"""Code in the file -> (torch's name, bytes per element)."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor in a file: `start` and `end` are offsets in bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file holds; tensor bytes begin at `data_start`."""

    tensors: dict[str, TensorEntry]
    data_start: int


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file. Raises ConfigError if it is not consistent."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or length > min(MAX_HEADER_BYTES, size_bytes - 8):
                raise _corrupt(path, f"its header claims {length} bytes, the file has {size_bytes}")
            text = file.read(length)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    tensors = parse_table(str(path), _parse_json(path, text))
    _check_ranges(path, tensors, size_bytes - 8 - length)
    return Header(tensors, data_start=8 + length)


def parse_table(name: str, table: dict[str, Any]) -> dict[str, TensorEntry]:
    """Read the table of the file `name`. Raises ConfigError if a tensor is not well described."""
    return {key: _parse_entry(name, key, entry) for key, entry in table.items() if key != "__metadata__"}


def read_tensor(path: Path, header: Header, name: str) -> "torch.Tensor":
    """Read one tensor into memory of its own. Raises ConfigError if the file ends too early."""
    import torch

    entry = header.tensors[name]
    content = bytearray(entry.num_bytes)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(header.data_start + entry.start)
            _read_fully(file, content)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); check the disk and its permissions"
        ) from error
    dtype = getattr(torch, DTYPES[entry.dtype][0])
    if not content:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.frombuffer(content, dtype=dtype).view(entry.shape)


def _read_fully(file: Any, content: bytearray) -> None:
    """Fill `content`: one read returns at most 2 GiB."""
    rest = memoryview(content)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise OSError(0, "it ends too early")
        rest = rest[count:]


def _parse_json(path: Path, text: bytes) -> dict[str, Any]:
    try:
        table = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, "its header is not JSON") from error
    if not isinstance(table, dict):
        raise _corrupt(path, "its header is not a table")
    return table


def _parse_entry(file: str, name: str, entry: Any) -> TensorEntry:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        is_sound = (
            dtype in DTYPES
            and len(shape) <= MAX_DIMENSIONS
            and all(type(number) is int and number >= 0 for number in (*shape, start, end))
            and end - start == math.prod(shape) * DTYPES[dtype][1]
        )
    except (TypeError, KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise _corrupt(file, f"its header describes the tensor {name[:80]!r} wrongly")
    return TensorEntry(dtype, shape, start, end)


def _check_ranges(path: Path, tensors: dict[str, TensorEntry], data_bytes: int) -> None:
    """Insist that the tensors lie one after the other and fill the file: else it is cut short, or lies."""
    position = 0
    for entry in sorted(tensors.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != position:
            raise _corrupt(path, "its tensors overlap or leave gaps")
        position = entry.end
    if position > data_bytes:
        raise _corrupt(path, f"it ends {position - data_bytes} bytes too early")
    if position < data_bytes:
        raise _corrupt(path, f"it has {data_bytes - position} bytes that belong to no tensor")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _corrupt(path: Path | str, what: str) -> ConfigError:
    return ConfigError(f"{path} is damaged: {what}; delete it and get it again")
