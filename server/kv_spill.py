"""Where idle sessions' KV pages wait on disk: raw bytes in unlinked files, bounded in sum.

Nothing survives the process, nothing is ever parsed: what is read back is what this process wrote.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Sequence
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from server.kv_extents import Pair

logger = logging.getLogger(__name__)


class SpilledPages:
    """The pages of one session on disk."""

    def __init__(self, store: "SpillStore", file: FileIO, layers: Sequence[Pair | None]) -> None:
        self.size_bytes = sum(half.nbytes for pair in layers if pair for half in pair)
        self._store = store
        self._file = file
        self._like = [pair and (_describe(pair[0]), _describe(pair[1])) for pair in layers]

    def read(self) -> list[Pair | None]:
        """Read everything back, layer by layer, to the devices that it came from."""
        self._file.seek(0)
        return [like and (self._read(*like[0]), self._read(*like[1])) for like in self._like]

    def close(self) -> None:
        """Free the disk space. Closing again does nothing."""
        if not self._file.closed:
            self._file.close()
            self._store.count(-self.size_bytes)

    def _read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device="cpu")
        if tensor.numel():
            _read_all(self._file, _bytes_of(tensor))
        self._store.progress += 1
        return tensor.to(device)


class SpillStore:
    """At most `limit_bytes` of spilled pages, in `directory` (default: the system's temporary one)."""

    def __init__(self, limit_bytes: int, directory: Path | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.progress = 0
        """Tensors written and read: shows that a long spill moves. One thread changes it."""
        self._directory = directory
        self._lock = threading.Lock()

    def count(self, more_bytes: int) -> None:
        """Add to what is used; sessions are spilled by one thread and closed by another."""
        with self._lock:
            self.used_bytes += more_bytes

    def write(self, layers: Sequence[Pair | None]) -> SpilledPages | None:
        """Write `layers` to a new file; None if the bound or the disk does not allow it."""
        size_bytes = sum(half.nbytes for pair in layers if pair for half in pair)
        if self.used_bytes + size_bytes > self.limit_bytes:
            return None
        try:
            file = _open_unlinked(self._directory)
            try:
                for half in (half for pair in layers if pair for half in pair):
                    if half.numel():
                        _write_all(file, _bytes_of(half.cpu().contiguous()))
                    self.progress += 1
            except OSError:
                file.close()
                raise
        except OSError as error:
            logger.warning("cannot spill a session's KV pages: %s", error)
            return None
        self.count(size_bytes)
        return SpilledPages(self, file, layers)


def _open_unlinked(directory: Path | None) -> FileIO:
    number, path = tempfile.mkstemp(prefix="murmur-kv-", dir=directory)
    os.unlink(path)
    return FileIO(number, "r+")


def _describe(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.view(torch.uint8).reshape(-1).numpy().data


def _write_all(file: FileIO, content: memoryview) -> None:
    """Write all of `content`: a raw file may take less than it was given (2 GiB at most on Linux)."""
    while content:
        content = content[file.write(content) :]


def _read_all(file: FileIO, room: memoryview) -> None:
    """Fill `room`. Raises OSError if the file is shorter than what was written to it."""
    while room:
        size_bytes = file.readinto(room)
        if not size_bytes:
            raise OSError("a spilled KV page is gone from the disk")
        room = room[size_bytes:]
