"""Peer ids and the Ed25519 keys inside them.

A libp2p peer id of an Ed25519 key is the key itself: base58 of an identity multihash of the key's protobuf.
Whoever knows a peer id can therefore check what that peer signed, without asking anybody.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from swarm.wire.blocks import PeerId

SIGNATURE_BYTES = 64
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
# Identity multihash of 36 bytes: protobuf field 1 (key type) = 1 (Ed25519), field 2 = 32 bytes of key.
_ID_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_ID_LETTERS = 52


class NotAPeerId(ValueError):
    """The text is no peer id of an Ed25519 key."""


def peer_id_of(public_key: bytes) -> PeerId:
    """Peer id of a raw Ed25519 public key of 32 bytes."""
    number, letters = int.from_bytes(_ID_PREFIX + public_key, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        letters = _ALPHABET[digit] + letters
    return PeerId("1" + letters)  # one leading zero byte


@lru_cache(maxsize=4096)
def public_key_of(peer_id: str) -> bytes:
    """Raw public key, 32 bytes, inside `peer_id`. Raises NotAPeerId if there is none."""
    if len(peer_id) != _ID_LETTERS or peer_id[0] != "1" or not set(peer_id) <= _DIGITS.keys():
        raise NotAPeerId("a peer id of an Ed25519 key has 52 letters and starts with 12D3Koo")
    number = 0
    for letter in peer_id:
        number = number * 58 + _DIGITS[letter]
    if number.bit_length() > 38 * 8:
        raise NotAPeerId("the peer id is too long")
    raw = number.to_bytes(38, "big")
    if not raw.startswith(_ID_PREFIX) or peer_id_of(raw[len(_ID_PREFIX) :]) != peer_id:
        raise NotAPeerId("the peer id holds no Ed25519 key")
    return raw[len(_ID_PREFIX) :]


def is_signed_by(peer_id: str, signature: bytes, message: bytes) -> bool:
    """Tell whether `signature` is that of `peer_id` over `message`; False as well if it is no peer id."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key_of(peer_id)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
