"""The seeds of our cross-signing keys in a file: encrypted with the operator's secret, for its owner alone.

They stand for the account, not for a device: whoever loses them must reset the account's identity, and people
are warned then. So the file is on the disk before anything is published.
"""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

SEED_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER = b"murmur cross-signing seeds 1\n"
FILE_BYTES = len(HEADER) + SALT_BYTES + NONCE_BYTES + 3 * SEED_BYTES + TAG_BYTES
SCRYPT_COST = 2**15  # 32 MiB and about 0.1 s, once at a start


class SeedsUnusable(Exception):
    """The file cannot be read or written, or not with this secret; the text says so in one sentence."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """Ed25519 private keys, 32 bytes each: the one that stands for the account and the two that it signs."""

    master: bytes
    self_signing: bytes
    user_signing: bytes

    def __repr__(self) -> str:
        return "Seeds(secret)"


def new_seeds() -> Seeds:
    """Fresh ones."""
    return Seeds(*(secrets.token_bytes(SEED_BYTES) for _ in range(3)))


def load_seeds(path: Path, user_id: str, secret: str) -> Seeds | None:
    """What `save_seeds` wrote for that user with that secret; None if there is no file.

    Raises SeedsUnusable if there is one and it cannot be used. Takes 0.1 s of a core.
    """
    try:
        with path.open("rb") as file:
            sealed = file.read(FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SeedsUnusable(f"{path} cannot be read: {error.strerror}; check who owns it") from error
    if len(sealed) != FILE_BYTES or not sealed.startswith(HEADER):
        raise SeedsUnusable(f"{path} is not the file that Murmur wrote: restore it from a backup")
    salt, rest = _cut(sealed.removeprefix(HEADER), SALT_BYTES)
    nonce, ciphertext = _cut(rest, NONCE_BYTES)
    try:
        plain = _cipher(secret, salt).decrypt(nonce, ciphertext, _bound_to(user_id))
    except InvalidTag:
        raise SeedsUnusable(
            f"{path} was written with another secret or for another account than {user_id}: set the "
            "store_secret it was made with, or restore the file that belongs to yours"
        ) from None
    return Seeds(*(plain[start : start + SEED_BYTES] for start in range(0, len(plain), SEED_BYTES)))


def save_seeds(path: Path, user_id: str, secret: str, seeds: Seeds) -> None:
    """Write them, in place of what was there; they are on the disk on return. Raises SeedsUnusable."""
    salt, nonce = secrets.token_bytes(SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
    plain = seeds.master + seeds.self_signing + seeds.user_signing
    sealed = HEADER + salt + nonce + _cipher(secret, salt).encrypt(nonce, plain, _bound_to(user_id))
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        _write_through(partial, sealed)
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise SeedsUnusable(
            f"{path} cannot be written: {error.strerror}; see that there is room, and who owns the folder"
        ) from error


def _cut(text: bytes, size: int) -> tuple[bytes, bytes]:
    return text[:size], text[size:]


def _bound_to(user_id: str) -> bytes:
    return HEADER + user_id.encode()


def _cipher(secret: str, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=SCRYPT_COST, r=8, p=1).derive(secret.encode()))


def _write_through(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # what a crash left
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
