"""What can go wrong between the Hub and the disk, as sentences; knows nothing of the Hub's library."""

import errno
import shutil
from pathlib import Path

from swarm.errors import ConfigError

TRANSIENT = frozenset((408, 425, 500, 502, 503, 504))
TOO_MANY = 429
LOG_IN = "log in with `.venv/bin/hf auth login` or set HF_TOKEN"
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
NO_ROOM_IN_WORDS = "os error 28"
"""The chunk store's errors are words alone: so ends what Rust says of ENOSPC."""


class HubUnreachable(ConfigError):
    """Nobody answered, or nothing of use. Later it may work, and meanwhile the cache may do."""


def refusal(status: int, code: str, message: str, repository: str, token_of: str | None) -> ConfigError:
    """Say what an answer of `status` 400 or more means; `code` and `message` are the Hub's own.

    `token_of` says where the token came from that was sent, if any. HubUnreachable if the same request may
    work later.
    """
    if status == TOO_MANY:
        return HubUnreachable("the Hub wants fewer requests from here; wait some minutes and start again")
    if status in TRANSIENT:
        return HubUnreachable(f"the Hub is in trouble (HTTP {status}); try again later")
    if code == "RevisionNotFound":
        return ConfigError(f"{repository} has no such revision; check what stands after the @")
    if status == 401 and "credentials" in message:
        return ConfigError(
            f"the Hub does not know the token from {token_of}; make a new one, or take this one away"
        )
    without, with_token = _wishes(status, code, repository)
    return ConfigError(without if token_of is None else with_token.format(token=f"the token from {token_of}"))


def _wishes(status: int, code: str, repository: str) -> tuple[str, str]:
    """What to do about a refusal: for who sent no token, and for who did."""
    if code == "GatedRepo":
        return (
            f"{repository} asks for consent: accept its terms on the Hub, then {LOG_IN}",
            f"{repository} asks for consent: accept its terms on the Hub with the account of {{token}}, and"
            " let it read gated models",
        )
    if code == "RepoNotFound" or status in (401, 404):
        return (
            f"{repository} is neither a directory nor a model on the Hub; check the name, and if it is"
            f" private {LOG_IN}",
            f"{repository} is neither a directory nor a model on the Hub that {{token}} may read; check the"
            " name, and what the token is allowed",
        )
    refused = f"the Hub refuses {repository} (HTTP {status})"
    return f"{refused}; choose another model, or {LOG_IN}", f"{refused}; check what {{token}} is allowed"


def disk_trouble(error: BaseException, folder: Path, what: str) -> ConfigError | None:
    """Say what is wrong with the disk while `what` is downloaded to `folder`; None if that is not it."""
    if getattr(error, "errno", None) in NO_ROOM or NO_ROOM_IN_WORDS in str(error):
        return ConfigError(
            f"the disk of {folder} is full while downloading {what}; make room or move HF_HOME"
        )
    if isinstance(error, PermissionError):
        return ConfigError(f"{error.filename or folder} cannot be used; fix its permissions or move HF_HOME")
    return None


def check_room(folder: Path, more_bytes: int, what: str) -> None:
    """Raise ConfigError if the disk of `folder`, which may not be there yet, has no room for so much."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(there).free
    if more_bytes > free_bytes:
        raise ConfigError(
            f"downloading {what} takes {in_words(more_bytes)} more, and the disk of {folder} has"
            f" {in_words(free_bytes)} left; make room or move HF_HOME"
        )


def in_words(num_bytes: int) -> str:
    """A size for people: 1.5 GB, 3.2 MB, 12.3 kB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes / 1000:,.1f} kB"
