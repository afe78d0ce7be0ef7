"""The account's cross-signing keys, and signatures of JSON objects by Ed25519 keys. Pure.

What is signed is the canonical JSON of an object without its signatures and without what the server adds
(https://spec.matrix.org/v1.16/appendices/#signing-json).
"""

import base64
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nio import Api

from bot.on_matrix.signing_seeds import Seeds

Object = dict[str, Any]


class Keys:
    """The account's three keys."""

    def __init__(self, user_id: str, seeds: Seeds) -> None:
        self._user_id = user_id
        self._master = Ed25519PrivateKey.from_private_bytes(seeds.master)
        self._self_signing = Ed25519PrivateKey.from_private_bytes(seeds.self_signing)
        self._user_signing = Ed25519PrivateKey.from_private_bytes(seeds.user_signing)

    @property
    def master(self) -> str:
        """The public key that stands for the account, in base64."""
        return _public(self._master)

    @property
    def self_signing(self) -> str:
        """The public key that signs devices, in base64."""
        return _public(self._self_signing)

    def to_upload(self) -> Object:
        """All three, the other two signed by the master key."""
        master = self._described("master", self._master)
        signed = {
            f"{usage}_key": _with_signature(self._described(usage, key), self._user_id, self._master)
            for usage, key in (("self_signing", self._self_signing), ("user_signing", self._user_signing))
        }
        return {"master_key": master, **signed}

    def sign_device(self, device: Object) -> Object:
        """A device with the account's signature."""
        return _with_signature(device, self._user_id, self._self_signing)

    def _described(self, usage: str, key: Ed25519PrivateKey) -> Object:
        public = _public(key)
        return {"user_id": self._user_id, "usage": [usage], "keys": {f"ed25519:{public}": public}}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _public(key: Ed25519PrivateKey) -> str:
    return _base64(key.public_key().public_bytes_raw())


def _to_sign(signed: Object) -> bytes:
    bare = {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}
    text: str = Api.to_canonical_json(bare)
    return text.encode()


def _with_signature(unsigned: Object, user_id: str, key: Ed25519PrivateKey) -> Object:
    """The object without what the server added, and with no signature but this one."""
    signature = {f"ed25519:{_public(key)}": _base64(key.sign(_to_sign(unsigned)))}
    bare = {name: value for name, value in unsigned.items() if name != "unsigned"}
    return bare | {"signatures": {user_id: signature}}


def is_signed(signed: Object, user_id: str, key_id: str, key: str) -> bool:
    """Whether the signature of that name is there and is right."""
    try:
        signature = signed["signatures"][user_id][key_id]
        Ed25519PublicKey.from_public_bytes(_unbase64(key)).verify(_unbase64(signature), _to_sign(signed))
    except (InvalidSignature, KeyError, TypeError, ValueError, RecursionError):
        return False
    return True
