"""Multiaddresses: as people write them, as p2pd reads them, and which of ours others can use."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hivemind.utils.multiaddr import Multiaddr

from swarm.errors import ConfigError
from swarm.wire.blocks import PeerId

_P2P = b"\xa5\x03"  # the code of /p2p in a multiaddress
_LOOPBACK = re.compile(r"/(ip4/127\.|ip6/::1/|dns[46]?/localhost/)")
_HOST = re.compile(r"/(?:ip4|ip6)/([^/]+)/")

Reach = Literal["machine", "network", "internet"]
"""From where an address can be dialled: the same machine alone, the same network, everywhere."""


def dialable_by_others(addresses: Sequence[str]) -> tuple[str, ...]:
    """Leave out addresses that lead back to whoever dials them, unless there are no others.

    A swarm on one machine, bound to 127.0.0.1, has no others.
    """
    return tuple(a for a in addresses if not _LOOPBACK.match(a)) or tuple(addresses)


def reach_of(address: str) -> Reach:
    """From where `address` can be dialled, as far as it shows; names are taken for public ones."""
    if _LOOPBACK.match(address):
        return "machine"
    host = _HOST.match(address)
    try:
        return "internet" if host is None or ipaddress.ip_address(host[1]).is_global else "network"
    except ValueError:
        return "network"


@dataclass(frozen=True)
class Dialable:
    """A multiaddress for p2pd: any object with `to_bytes` is one to hivemind."""

    raw: bytes

    def to_bytes(self) -> bytes:
        return self.raw


def dialable(address: str, peer_id: PeerId) -> Dialable | None:
    """`address` without the `/p2p/` of `peer_id` at its end; None if it is no address.

    hivemind writes the Ed25519 peer ids inside (those of relays) as CIDs of 40 bytes, and its own p2pd reads
    multihashes of 38.
    """
    try:
        raw: bytes = Multiaddr(address.removesuffix(f"/p2p/{peer_id}")).to_bytes()
        return Dialable(raw.replace(_P2P + b"\x28\x01\x72\x00\x24", _P2P + b"\x26\x00\x24"))
    except Exception:  # noqa: BLE001 - the parser raises what it meets: KeyError, struct.error, ...
        return None


def peer_address(address: str) -> str:
    """`address`, if it is a multiaddress that names a peer at its end. Raises ConfigError."""
    maddr, _, peer_id = str(parsed(address)).rpartition("/p2p/")
    if not maddr or "/" in peer_id:
        raise ConfigError(
            f"{address!r} names no peer: the address of an initial peer ends in /p2p/12D3Koo..."
        )
    return address


def parsed(maddr: str) -> Multiaddr:
    """`maddr` as hivemind reads it. Raises ConfigError if it is none."""
    try:
        return Multiaddr(maddr)
    except Exception as error:
        raise ConfigError(
            f"{maddr!r} is no multiaddress; one looks like /ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."
        ) from error
