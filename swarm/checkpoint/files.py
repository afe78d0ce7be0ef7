"""Where a checkpoint's files are: what is asked of any place, and a local directory; the Hub has `hub`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from swarm.checkpoint.digests import DigestMemory, Progress, read_checksums
from swarm.errors import ConfigError

CHECKSUMS = "SHA256SUMS"


class ModelFiles(Protocol):
    """A checkpoint's files, by name. Raises ConfigError if they cannot be had."""

    name: str
    title: str
    """What a stranger may read: the name without the folders above it."""

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        """Return where `filename` lies, fetched if need be; None if the model has no such file."""

    def has(self, filename: str) -> bool:
        """Tell whether the model has such a file, without fetching it."""

    def peek(self, filename: str) -> dict[str, Any] | None:
        """Return the table of a safetensors file that is elsewhere; None if the file is here."""

    def digest(self, filename: str, progress: Progress | None = None) -> str:
        """Return the SHA-256 of a weight file in hexadecimal digits; on the Hub without fetching the file."""

    def reserve(self, filenames: Collection[str]) -> None:
        """See to it that files that are elsewhere have room here. Raises ConfigError if they have none."""

    def names(self) -> tuple[str, ...]:
        """List what there is; empty if nobody can tell."""


class LocalFiles:
    """Files of a directory."""

    def __init__(self, folder: Path, memory: DigestMemory | None = None) -> None:
        self.name = str(folder)
        self.title = folder.absolute().name
        self._folder = folder
        self._memory = memory or DigestMemory()

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        del progress  # nothing to fetch
        path = self._folder / filename
        return path if path.is_file() else None

    def has(self, filename: str) -> bool:
        return self.find(filename) is not None

    def peek(self, filename: str) -> dict[str, Any] | None:
        del filename
        return None

    def digest(self, filename: str, progress: Progress | None = None) -> str:
        """Of a file that is not here, SHA256SUMS may tell: a server needs only the files of its blocks."""
        path = self.find(filename)
        if path is not None:
            return self._memory.find_digest(path, progress)
        digest = read_checksums(self._folder / CHECKSUMS).get(filename)
        if digest is None:
            raise ConfigError(
                f"{self.name} lacks {filename}, which its index names; get that file again, or run"
                f" `sha256sum *.safetensors > {CHECKSUMS}` where all files are and copy {CHECKSUMS} here"
            )
        return digest

    def reserve(self, filenames: Collection[str]) -> None:
        del filenames  # all are here

    def names(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(path.name for path in self._folder.iterdir()))
        except OSError as error:
            raise ConfigError(
                f"{self.name} cannot be read ({error.strerror}); check its permissions"
            ) from error
