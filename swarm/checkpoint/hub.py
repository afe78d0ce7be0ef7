"""A model on the Hugging Face Hub: fetched file by file into the Hub's own cache, by its own client library.

The only file that imports huggingface_hub; its exceptions end here, each as one sentence. What a broken
connection cut off the library takes up again within the same start; the next start begins that file anew, and
keeps those that are whole. A start that was killed leaves a `*.incomplete` in the cache, which nobody reads.
"""

import logging
import os
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from swarm.checkpoint.digests import (
    DigestMemory,
    Progress,
    check_name,
    is_digest,
    load_digests,
    name_in_cache,
    save_digests,
)
from swarm.checkpoint.hub_troubles import HubUnreachable, check_room, disk_trouble, in_words, refusal
from swarm.checkpoint.progress import bar_class
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_SMALL_BYTES = 64 << 20
"""Of everything but weights: configs, indices and tokenizers have a tenth of it."""
MAX_CONFIG_BYTES = 4 << 20
WEIGHTS = ".safetensors"
INDEX = ".index.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubFiles:
    """Files of a repository on the Hub, fetched when asked for.

    The first file found pins the commit: a model that changes meanwhile never mixes two versions. If the Hub
    cannot be reached then, or with HF_HUB_OFFLINE, a warm cache is enough. `progress` hears of what nobody
    else wants to hear of.
    """

    def __init__(
        self,
        repository: str,
        revision: str | None = None,
        *,
        cache_dir: Path | None = None,
        offline: bool = False,
        progress: Progress | None = None,
        endpoint: str | None = None,
    ) -> None:
        from huggingface_hub import HfApi, constants

        _quiet_library()
        self.name = self.title = repository
        self._revision = revision or constants.DEFAULT_REVISION
        self._commit: str | None = None
        self._progress = progress
        self._cache_dir = Path(cache_dir or constants.HF_HUB_CACHE)
        self._digests_dir = self._cache_dir.with_name("murmur-digests")
        self._api = HfApi(endpoint=endpoint)
        self._listing: Any = None
        self._is_offline = offline or constants.HF_HUB_OFFLINE
        self._why_offline = "HF_HUB_OFFLINE is set; unset it, or fill the cache where there is a network"

    def find(self, filename: str, progress: Progress | None = None) -> Path | None:
        if self._commit is None and not self._is_offline:
            self._try_to_list(filename)
        is_known, cached = self._find_cached(filename)
        if self._is_offline:
            return self._found_offline(filename, cached, is_known=is_known)
        if self._commit is not None and is_known:
            return cached
        self._check_size(filename, self._size(filename))
        path = self._download(filename, progress or self._progress)
        if path is not None:
            self._pin(path, filename)
            self._check_size(filename, path.stat().st_size)
            check_name(path, progress or self._progress)
        return path

    def has(self, filename: str) -> bool:
        is_known, cached = self._find_cached(filename)
        if is_known or self._is_offline:
            return cached is not None
        try:
            return filename in self._list()
        except HubUnreachable as error:  # the cache may still hold what is looked for next
            self._go_offline(error)
            return False

    def peek(self, filename: str) -> dict[str, Any] | None:
        if self._commit is None or self._is_offline or self._find_cached(filename)[0]:
            return None
        with self._translated(filename):
            found = self._parse(filename)
        return {
            name: {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": tensor.data_offsets}
            for name, tensor in found.tensors.items()
        }

    def digest(self, filename: str, progress: Progress | None = None) -> str:
        _, cached = self._find_cached(filename)
        if cached is not None and is_digest(named := name_in_cache(cached)):
            return named
        if cached is None and (known := self._named_digests().get(filename)):
            return known
        path = cached or self.find(filename, progress)
        if path is None:
            raise ConfigError(f"{self.name} lacks {filename}, which its index names; choose another revision")
        return DigestMemory().find_digest(path, progress)

    def reserve(self, filenames: Collection[str]) -> None:
        missing = [name for name in filenames if self._find_cached(name)[1] is None]
        if not missing or self._is_offline:
            return
        what = missing[0] if len(missing) == 1 else f"{len(missing)} files of {self.name}"
        check_room(self._cache_dir, sum(map(self._size, missing)), what)

    def names(self) -> tuple[str, ...]:
        return () if self._is_offline else tuple(self._list())

    def _find_cached(self, filename: str) -> tuple[bool, Path | None]:
        """Look into the cache alone: whether it can tell, and the file of that name if there is one."""
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        revision = self._commit or self._revision
        try:
            found = try_to_load_from_cache(self.name, filename, self._cache_dir, revision=revision)
        except HFValidationError:
            return False, None
        return (True, Path(found)) if isinstance(found, str) else (found is not None, None)

    def _found_offline(self, filename: str, cached: Path | None, *, is_known: bool) -> Path | None:
        if cached is not None:
            self._pin(cached, filename)
        elif self._commit is None:
            raise ConfigError(f"{self.name} is neither a directory nor in the cache, and {self._why_offline}")
        elif not is_known and filename.endswith((WEIGHTS, INDEX)):  # nobody asks for them in vain
            raise ConfigError(f"{filename} of {self.name} is not in the cache, and {self._why_offline}")
        return cached

    def _try_to_list(self, filename: str) -> None:
        """Ask the Hub before the first file: it answers within a deadline, or the cache has to do."""
        try:
            self._list()
        except ConfigError as error:
            if self._find_cached(filename)[1] is None and not isinstance(error, HubUnreachable):
                raise
            self._go_offline(error)

    def _go_offline(self, error: ConfigError) -> None:
        logger.info("%s: from now on the cache alone: %s", self.name, error)
        self._is_offline, self._why_offline = True, str(error)

    def _pin(self, path: Path, filename: str) -> None:
        commit = path.parents[len(Path(filename).parts) - 1].name  # snapshots/<commit>/<filename>
        if _COMMIT.fullmatch(commit) is None:  # it becomes the name of a file of ours
            raise ConfigError("what answers is no Hub: it names no commit; check HF_ENDPOINT")
        self._commit = commit

    def _list(self) -> dict[str, Any]:
        """What the Hub tells of the pinned commit's files, by name."""
        from huggingface_hub import constants

        if self._listing is None or self._commit not in (None, self._listing.sha):
            with self._translated():
                _check_token()
                self._listing = self._api.model_info(
                    self.name,
                    revision=self._commit or self._revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                )
        files = self._listing.siblings or ()
        return {file.rfilename: file for file in files if isinstance(file.rfilename, str)}

    def _size(self, filename: str) -> int:
        size = getattr(self._list().get(filename), "size", None)
        return size if isinstance(size, int) else 0

    def _parse(self, filename: str) -> Any:
        from huggingface_hub.errors import SafetensorsParsingError

        try:
            return self._api.parse_safetensors_file_metadata(self.name, filename, revision=self._commit)
        except (AttributeError, RecursionError, TypeError) as error:  # a header that is JSON, but no table
            raise SafetensorsParsingError from error

    def _named_digests(self) -> dict[str, str]:
        """Digests of the pinned commit's large files, from the Hub; kept for times without a network."""
        memory = self._digests_dir / f"{self._commit}.json"
        known = load_digests(memory)
        if known or self._is_offline:
            return known
        found = {name: file.lfs.sha256 for name, file in self._list().items() if file.lfs is not None}
        named = {name: digest for name, digest in found.items() if is_digest(digest)}
        save_digests(memory, named)
        return named

    def _check_size(self, filename: str, size_bytes: int) -> None:
        limit_bytes = MAX_CONFIG_BYTES if filename == "config.json" else MAX_SMALL_BYTES
        if size_bytes > limit_bytes and not filename.endswith(WEIGHTS):
            raise ConfigError(
                f"{filename} of {self.name} has {in_words(size_bytes)}, too much to be what its name says;"
                " choose another model"
            )

    def _download(self, filename: str, progress: Progress | None) -> Path | None:
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            with self._translated(filename):
                path = self._api.hf_hub_download(
                    self.name,
                    filename,
                    revision=self._commit or self._revision,
                    cache_dir=self._cache_dir,
                    tqdm_class=bar_class(f"downloading {filename}", progress),
                )
        except RemoteEntryNotFoundError:
            return None
        return Path(path)

    @contextmanager
    def _translated(self, filename: str = "") -> Iterator[None]:
        """Turn what the library raises into one sentence; that a file does not exist is no mistake."""
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        try:
            yield
        except (ConfigError, RemoteEntryNotFoundError):
            raise
        except LocalEntryNotFoundError as error:  # the cause is what the Hub answered
            raise self._sentence(error.__cause__ or error, filename) from error
        except Exception as error:  # each way to fetch has its own errors: HTTP, the chunk store, the disk
            raise self._sentence(error, filename) from error

    def _sentence(self, error: BaseException, filename: str) -> ConfigError:
        from huggingface_hub import errors

        if isinstance(error, errors.HfHubHTTPError):
            code, message = (error.response.headers.get(f"X-Error-{end}", "") for end in ("Code", "Message"))
            return refusal(error.response.status_code, code, message, self.name, _token_source())
        if isinstance(error, errors.HFValidationError):
            return ConfigError(f"{self.name!r} is neither a directory nor a model's name on the Hub")
        if isinstance(error, errors.SafetensorsParsingError):
            return ConfigError(f"{filename} of {self.name} is damaged on the Hub; choose another model")
        if isinstance(error, errors.FileMetadataError):
            return ConfigError("what answers is no Hub: it names no commit or digest; check HF_ENDPOINT")
        trouble = disk_trouble(error, self._cache_dir, filename or self.name)
        return trouble or self._unreachable(type(error).__name__, filename)

    def _unreachable(self, kind: str, filename: str) -> ConfigError:
        if not filename:
            host = urlsplit(self._api.endpoint).netloc.rpartition("@")[2]
            return HubUnreachable(
                f"the Hub ({host}) cannot be reached ({kind}); check the name and the network"
            )
        return HubUnreachable(
            f"{filename} of {self.name} could not be downloaded ({kind}); check the network and start again:"
            " files that are whole are kept"
        )


def _check_token() -> None:
    from huggingface_hub import get_token

    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(f"the token from {_token_source()} has letters that no token has; get it again")


def _token_source() -> str | None:
    """Where the person's token comes from, as the library finds it; None if none is sent."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN or get_token() is None:
        return None
    names = (name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name))
    return next(names, constants.HF_TOKEN_PATH)


def _quiet_library() -> None:
    """What it warns of we tell in sentences of ours, when it comes to that; who asks for more gets it."""
    warnings.filterwarnings("ignore", category=UserWarning, module="huggingface_hub")
    its_log = logging.getLogger("huggingface_hub")
    if its_log.level == logging.WARNING:
        its_log.setLevel(logging.ERROR)
