"""Who this process is: an Ed25519 key in a file that libp2p reads too.

The file is libp2p's protobuf of a private key: key type Ed25519, then seed and public key, 64 bytes.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from swarm.errors import ConfigError
from swarm.passing_folder import passing_folder
from swarm.wire.blocks import PeerId
from swarm.wire.keys import peer_id_of

_FILE_PREFIX = bytes([0x08, 0x01, 0x12, 0x40])
_FILE_BYTES = len(_FILE_PREFIX) + 64
OPTION = "--identity"


@dataclass(frozen=True)
class Identity:
    """A private key, the peer id that belongs to it, and the file that holds both."""

    path: Path
    peer_id: PeerId
    _key: Ed25519PrivateKey
    option: str = OPTION
    """What names the file."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes that `swarm.wire.keys.is_signed_by` accepts for our peer id."""
        return self._key.sign(message)


def load_identity(path: Path | str, option: str = OPTION) -> Identity:
    """Read the key in `path`; make one if there is no such file.

    Raises ConfigError if that fails; the sentence says that `option` can name another file.
    """
    path = Path(path)
    try:
        if not path.exists():
            _create(path)
        with path.open("rb") as file:  # it may be a device, which has no end
            raw = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the identity file {path} cannot be used: {error.strerror}; name another one with {option}"
        ) from error
    return _parse(path, raw, option)


@contextmanager
def temporary_identity() -> Iterator[Identity]:
    """A new identity whose file is gone after the block. Raises ConfigError if there is no place for it."""
    check_temporary_folder()
    with passing_folder() as folder:
        yield load_identity(folder / "identity.key")


def check_temporary_folder() -> None:
    """Raise ConfigError if this machine has none that can be written to; libraries say it less clearly."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise ConfigError(
            "there is no folder for temporary files with room in it: free some, or name one with TMPDIR"
        ) from error


@contextmanager
def holding(identity: Identity) -> Iterator[None]:
    """Keep other processes of this machine from using the same identity meanwhile.

    Two peers with one id disturb each other in ways that nobody understands. Raises ConfigError if the
    identity is held already.
    """
    with identity.path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another process runs with the identity {identity.path}: stop it, or name another "
                f"{identity.option}"
            ) from error
        yield


def _parse(path: Path, raw: bytes, option: str) -> Identity:
    seed, public = raw[len(_FILE_PREFIX) : -32], raw[-32:]
    if len(raw) == _FILE_BYTES and raw.startswith(_FILE_PREFIX):
        key = Ed25519PrivateKey.from_private_bytes(seed)
        if key.public_key().public_bytes_raw() == public:
            return Identity(path, peer_id_of(public), key, option)
    raise ConfigError(
        f"{path} holds no Ed25519 identity: name another file with {option}, or remove it to get a new one"
    )


def _create(path: Path) -> None:
    """Write a new key so that `path` never exists half-written, and never replaces what another wrote."""
    key = Ed25519PrivateKey.generate()
    raw = _FILE_PREFIX + key.private_bytes_raw() + key.public_key().public_bytes_raw()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
