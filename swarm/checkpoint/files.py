"""Where a checkpoint's files are: a local directory, or the Hugging Face Hub through its own client library.

The only file that imports huggingface_hub; its exceptions end here, each as one sentence.
"""

import errno
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from swarm.checkpoint.digests import (
    DigestMemory,
    Progress,
    compute_digest,
    is_digest,
    load_digests,
    read_checksums,
    save_digests,
)
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

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

    def names(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(path.name for path in self._folder.iterdir()))
        except OSError as error:
            raise ConfigError(
                f"{self.name} cannot be read ({error.strerror}); check its permissions"
            ) from error


class HubFiles:
    """Files of a repository on the Hub, fetched when asked for into the Hub's own cache.

    The first file found pins the commit: a model that changes meanwhile never mixes two versions. Without a
    network, or with HF_HUB_OFFLINE, a warm cache is enough.
    """

    def __init__(
        self,
        repository: str,
        revision: str | None = None,
        *,
        cache_dir: Path | None = None,
        offline: bool = False,
        endpoint: str | None = None,
    ) -> None:
        from huggingface_hub import HfApi, constants

        # What it warns of, a disk that is nearly full, is told in a sentence of ours when it comes to that.
        warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")

        self.name = self.title = repository
        self._revision = revision
        self._commit: str | None = None
        self._cache_dir = cache_dir
        self._digests_dir = Path(cache_dir or constants.HF_HUB_CACHE).with_name("murmur-digests")
        self._is_offline = offline or constants.HF_HUB_OFFLINE
        self._api = HfApi(endpoint=endpoint)

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        is_known, cached = self._find_cached(filename)
        if is_known:
            return cached
        path = self._download(filename, progress)
        if path is not None:
            self._commit = path.parents[len(Path(filename).parts) - 1].name  # snapshots/<commit>/<filename>
            _check_digest(path, progress)
        return path

    def has(self, filename: str) -> bool:
        is_known, cached = self._find_cached(filename)
        if is_known:
            return cached is not None
        try:
            with _translated(self.name):
                return self._api.file_exists(self.name, filename, revision=self._commit)
        except ConfigError as error:  # without a network the cache may still hold what is looked for next
            logger.info("whether %s has %s is unknown: %s", self.name, filename, error)
            return False

    def peek(self, filename: str) -> dict[str, Any] | None:
        is_known, _ = self._find_cached(filename)
        if is_known:
            return None
        with _translated(self.name):
            found = self._api.parse_safetensors_file_metadata(self.name, filename, revision=self._commit)
        return {
            name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": tensor.data_offsets}
            for name, tensor in found.tensors.items()
        }

    def digest(self, filename: str, progress: Progress | None = None) -> str:
        _, cached = self._find_cached(filename)
        if cached is not None and is_digest(cached.resolve().name):  # so the Hub's cache names its files
            return cached.resolve().name
        if cached is None and (named := self._named_digests().get(filename)):
            return named
        path = cached or self.find(filename, progress)
        if path is None:
            raise ConfigError(f"{self.name} lacks {filename}, which its index names; choose another revision")
        return DigestMemory().find_digest(path, progress)

    def _named_digests(self) -> dict[str, str]:
        """Digests of the pinned commit's large files, from the Hub; kept for times without a network."""
        memory = self._digests_dir / f"{self._commit}.json"
        known = load_digests(memory)
        if known or self._is_offline:
            return known
        with _translated(self.name):
            found = self._api.model_info(self.name, revision=self._commit, files_metadata=True)
        named = {file.rfilename: file.lfs.sha256 for file in found.siblings or () if file.lfs is not None}
        save_digests(memory, named)
        return {name: digest for name, digest in named.items() if is_digest(digest)}

    def names(self) -> tuple[str, ...]:
        if self._is_offline:
            return ()
        with _translated(self.name):
            return tuple(self._api.list_repo_files(self.name, revision=self._commit))

    def _find_cached(self, filename: str) -> tuple[bool, Path | None]:
        """Look into the cache alone: whether it can tell, and the pinned commit's file if there is one."""
        from huggingface_hub import try_to_load_from_cache

        if self._commit is None:
            return False, None
        found = try_to_load_from_cache(self.name, filename, self._cache_dir, revision=self._commit)
        if isinstance(found, str):
            return True, Path(found)
        return found is not None or self._is_offline, None

    def _download(self, filename: str, progress: Progress | None) -> Path | None:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            with _translated(self.name):
                return Path(
                    self._api.hf_hub_download(
                        self.name,
                        filename,
                        revision=self._commit or self._revision,
                        cache_dir=self._cache_dir,
                        local_files_only=self._is_offline,
                        tqdm_class=_bar_class(f"downloading {filename}", progress),
                    )
                )
        except LocalEntryNotFoundError as error:
            raise ConfigError(
                f"{self.name} is neither a directory nor in the cache, and the Hub cannot be reached; check"
                " the name and the network"
            ) from error
        except EntryNotFoundError:
            return None


def _check_digest(path: Path, progress: Progress | None) -> None:
    """Compare a large file with the SHA-256 that the Hub names it by. Raises ConfigError if they differ."""
    blob = path.resolve()
    if not is_digest(blob.name):
        return
    with blob.open("rb", buffering=0) as file:
        digest = compute_digest(file, f"checking {path.name}", progress)
    if digest != blob.name:
        blob.unlink()
        raise ConfigError(f"{path.name} was damaged on its way and is deleted again; start once more")


@contextmanager
def _translated(repository: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence; that a file does not exist is no mistake."""
    from huggingface_hub import errors

    try:
        yield
    except errors.EntryNotFoundError:
        raise
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{repository} asks for consent: accept its terms on the Hub, then log in with `hf auth login` or"
            " set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{repository} is neither a directory nor a model on the Hub; check the name, and if it is"
            " private log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{repository} has no such revision; check what stands after the @") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{repository!r} is neither a directory nor a model's name on the Hub") from error
    except errors.SafetensorsParsingError as error:
        raise ConfigError(
            f"the weights of {repository} are damaged on the Hub; choose another model"
        ) from error
    except Exception as error:  # each way to fetch has its own errors: HTTP, the chunk store, the disk
        raise _download_failed(repository, error) from error


def _download_failed(repository: str, error: Exception) -> ConfigError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(f"the disk is full while downloading {repository}; make room or move HF_HOME")
    if isinstance(error, PermissionError):
        return ConfigError(f"{error.filename} cannot be written; fix its permissions or move HF_HOME")
    return ConfigError(
        f"{repository} could not be downloaded ({type(error).__name__}); check the network and start again:"
        " what has arrived is kept"
    )


def _bar_class(what: str, progress: Progress | None) -> type[Any]:
    """Return a kind of progress bar that reports to `progress` and draws nothing."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            if progress is not None and n:
                self.n += n
                progress(what, int(self.n), int(self.total or 0))
            return None

    return Silent
