"""Where a checkpoint's files are: a local directory, or the Hugging Face Hub through its own client library.

The only file that imports huggingface_hub; its exceptions end here, each as one sentence.
"""

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with what is going on ("downloading" or "loading"), bytes done, and bytes in total."""


class ModelFiles(Protocol):
    """A checkpoint's files, by name."""

    name: str

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        """Return where `filename` lies, after fetching it if need be; None if the model has no such file."""

    def names(self) -> tuple[str, ...]:
        """List what there is; empty if nobody can tell."""


class LocalFiles:
    """Files of a directory."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        del progress  # nothing to fetch
        path = self._folder / filename
        try:
            return path if path.is_file() else None
        except OSError as error:
            raise _unreadable(self.name, error) from error

    def names(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(path.name for path in self._folder.iterdir()))
        except OSError as error:
            raise _unreadable(self.name, error) from error


class HubFiles:
    """Files of a repository on the Hub, fetched when asked for into the Hub's own cache.

    The first file found pins the commit: a model that changes meanwhile never mixes two versions.
    """

    def __init__(
        self, repository: str, revision: str | None, *, cache_dir: Path | None, offline: bool
    ) -> None:
        self.name = repository
        self._revision = revision
        self._cache_dir = cache_dir
        self._offline = offline

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            with _translated(self.name):
                path = hf_hub_download(
                    self.name,
                    filename,
                    revision=self._revision,
                    cache_dir=self._cache_dir,
                    local_files_only=self._offline,
                    tqdm_class=_bar_class(progress),
                )
        except LocalEntryNotFoundError as error:
            if self._revision is not None and self._offline and self._has_pinned_commit():
                return None
            raise ConfigError(
                f"{self.name} is neither a directory nor in the cache, and the Hub cannot be reached;"
                " check the name and the network"
            ) from error
        except EntryNotFoundError:
            return None
        self._revision = _commit_of(Path(path), filename)
        return Path(path)

    def names(self) -> tuple[str, ...]:
        from huggingface_hub import HfApi

        if self._offline:
            return ()
        with _translated(self.name):
            return tuple(HfApi().list_repo_files(self.name, revision=self._revision))

    def _has_pinned_commit(self) -> bool:
        return self._revision is not None and len(self._revision) == 40


@contextmanager
def _translated(repository: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence; a file that does not exist stays what it is."""
    from huggingface_hub import errors

    try:
        yield
    except errors.EntryNotFoundError:
        raise
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"{repository} asks for consent: accept its terms on the Hub, then log in with `hf auth login`"
            " or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{repository} is neither a directory nor a model on the Hub; check the name, and if it is"
            " private log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{repository} has no such revision; check what stands after the @") from error
    except errors.HFValidationError as error:
        raise ConfigError(
            f"{repository!r} is neither a directory nor the name of a model on the Hub"
        ) from error
    except OSError as error:
        raise _download_failed(repository, error) from error


def _download_failed(repository: str, error: OSError) -> ConfigError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConfigError(
            f"the disk is full while downloading {repository}; free some space or set HF_HOME elsewhere"
        )
    if isinstance(error, PermissionError):
        return ConfigError(
            f"the cache cannot be written ({error.filename}); fix its permissions or set HF_HOME elsewhere"
        )
    return ConfigError(
        f"{repository} could not be downloaded ({type(error).__name__}); check the network and try again"
    )


def _unreadable(name: str, error: OSError) -> ConfigError:
    return ConfigError(f"{name} cannot be read ({error.strerror}); check its permissions")


def _commit_of(path: Path, filename: str) -> str:
    """Return the commit from `.../snapshots/<commit>/<filename>`."""
    return path.parents[len(Path(filename).parts) - 1].name


def _bar_class(progress: Progress | None) -> type[Any] | None:
    """Return a progress bar that reports to `progress` and draws nothing."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": False, "file": _Nowhere(), "gui": False}))

        def update(self, n: float | None = 1) -> bool | None:
            if progress is not None and n:
                self.n += n
                progress("downloading", int(self.n), int(self.total or 0))
            return None

    return Silent


class _Nowhere:
    """A text file that forgets."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass
