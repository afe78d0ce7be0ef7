"""SHA-256 digests of weight files: computed once, and remembered in a small JSON file of ours.

Nothing is ever written into a model's own directory. A remembered digest holds for one path, size, time of
change and inode; a memory that is damaged or cannot be written costs only the computation.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from swarm.errors import ConfigError
from swarm.whole_file import replace_file

Progress = Callable[[str, int, int], None]
"""Called with what is going on ("loading", or "downloading" and a file), bytes done, bytes in total."""

MEMORY = Path("~/.cache/murmur/digests.json")
MAX_REMEMBERED = 4096
MAX_MEMORY_BYTES = 4 << 20
CHUNK_BYTES = 4 << 20
WORTH_REMEMBERING_BYTES = 16 << 20  # less is read in a hundredth of a second
SETTLED_NS = 2 * 10**9  # a file may change twice within one tick of its clock; after this it has not
DIGEST = re.compile(r"[0-9a-f]{64}")
GIT_DIGEST = re.compile(r"[0-9a-f]{40}")
_CHECKSUM = re.compile(r"([0-9a-f]{64}) [ *]([\w.-]+)")


class DigestMemory:
    """Digests of files of this machine. `worth_bytes`: smaller files are read again each time."""

    def __init__(self, path: Path = MEMORY, worth_bytes: int = WORTH_REMEMBERING_BYTES) -> None:
        self._path = path
        self._worth_bytes = worth_bytes

    def find_digest(self, path: Path, progress: Progress | None = None) -> str:
        """Return the SHA-256 of a file in hexadecimal digits, read unless remembered.

        Raises ConfigError if it cannot be read.
        """
        try:
            with path.open("rb", buffering=0) as file:
                key = _key(path, os.fstat(file.fileno()))
                digest = load_digests(self._memory).get(key) if self._is_worth(file) else None
                if digest is None:
                    digest = compute_digest(file, f"checking {path.name}", progress)
                    if self._is_worth(file) and key == _key(path, os.fstat(file.fileno())):
                        save_digests(self._memory, {key: digest})
                return digest
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}); check the disk and its permissions"
            ) from error

    @property
    def _memory(self) -> Path:
        return self._path.expanduser()

    def _is_worth(self, file: io.FileIO) -> bool:
        status = os.fstat(file.fileno())
        is_settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
        return status.st_size >= self._worth_bytes and is_settled


def load_digests(path: Path) -> dict[str, str]:
    """Read remembered digests; none if there are none or the file is damaged."""
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(MAX_MEMORY_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(table, dict):
        return {}
    return {key: digest for key, digest in table.items() if is_digest(digest)}


def save_digests(path: Path, news: Mapping[str, str]) -> None:
    """Remember `news` too; forget the oldest if there are too many. Failing at it is no reason to fail."""
    table = {key: digest for key, digest in load_digests(path).items() if key not in news} | dict(news)
    kept = dict(list(table.items())[-MAX_REMEMBERED:])
    with contextlib.suppress(OSError, RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(kept, indent=1).encode())


def is_digest(text: object) -> bool:
    """Tell whether `text` is a SHA-256 in hexadecimal digits."""
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def read_checksums(path: Path) -> dict[str, str]:
    """Read what `sha256sum *.safetensors > SHA256SUMS` wrote: file name -> digest. Empty if nothing did."""
    try:
        with path.open("rb") as file:  # reading characters takes five bytes of room for each that may come
            lines = file.read(MAX_MEMORY_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return {}
    found = (_CHECKSUM.fullmatch(line) for line in lines)
    return {match[2]: match[1] for match in found if match}


def compute_digest(file: io.FileIO, what: str, progress: Progress | None) -> str:
    """Return the SHA-256 of an open file in hexadecimal digits. Raises OSError."""
    hasher, total = hashlib.sha256(), os.fstat(file.fileno()).st_size
    chunk, done = bytearray(CHUNK_BYTES), 0
    while count := file.readinto(chunk):
        hasher.update(memoryview(chunk)[:count])
        done += count
        if progress is not None:
            progress(what, done, total)
    return hasher.hexdigest()


def check_name(path: Path, progress: Progress | None) -> None:
    """Compare a file with the digest that the Hub names it by. Raises ConfigError if they differ.

    That is the SHA-256 of a large file, and git's SHA-1 of a small one.
    """
    named = name_in_cache(path)
    with path.open("rb", buffering=0) as file:
        if is_digest(named):
            found = compute_digest(file, f"checking {path.name}", progress)
        elif GIT_DIGEST.fullmatch(named):
            hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            found = hashlib.file_digest(file, lambda: hasher).hexdigest()
        else:
            return
    if found != named:
        for place in (path.resolve(), path.parent / path.readlink(), path):
            place.unlink(missing_ok=True)
        raise ConfigError(f"{path.name} was damaged on its way and is deleted again; start once more")


def name_in_cache(path: Path) -> str:
    """The digest by which the cache names a file; "" if it does not.

    Only one link is followed: blobs may in turn be links into a store that names them otherwise.
    """
    try:
        return path.readlink().name
    except OSError:
        return ""


def _key(path: Path, status: os.stat_result) -> str:
    return json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino])
