"""Where we listen: checked before p2pd is started, and p2pd's own words turned into a sentence."""

import errno
import re
import socket
from collections.abc import Sequence

from swarm.errors import ConfigError, NobodyAnswers

_HOST = re.compile(r"^/(ip4|ip6)/([^/]+)/(tcp|udp)/(\d{1,5})(/.*)?$")
_FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}


def check_host_maddrs(maddrs: Sequence[str]) -> None:
    """Raise ConfigError if one of `maddrs` is no address to listen at, or its port is taken.

    libp2p shares ports (SO_REUSEPORT), so two peers at one port would each get half of the other's visitors
    without a word; a plain bind tells.
    """
    for maddr in maddrs:
        match = _HOST.match(maddr)
        if match is None or int(match[4]) > 65_535:
            raise ConfigError(f"{maddr!r} is no address to listen at; one looks like /ip4/0.0.0.0/tcp/31337")
        _check_port(maddr, match)


def check_initial_peers(addresses: Sequence[str]) -> None:
    """Raise ConfigError for what cannot be an address of a peer; transport.py looks closer."""
    for address in addresses:
        if not address.startswith("/"):
            raise ConfigError(
                f"{address!r} is no multiaddress; one looks like /ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."
            )
        if "/p2p/" not in address:
            raise ConfigError(
                f"{address!r} names no peer: the address of an initial peer ends in /p2p/12D3Koo..."
            )


def _check_port(maddr: str, match: re.Match[str]) -> None:
    kind = socket.SOCK_STREAM if match[3] == "tcp" else socket.SOCK_DGRAM
    with socket.socket(_FAMILIES[match[1]], kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # a server just stopped is no obstacle
        try:
            probe.bind((match[2], int(match[4])))
        except OSError as error:
            raise ConfigError(_why_not(maddr, match[4], error)) from error


def _why_not(maddr: str, port: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: stop what listens there, or name another port with --host-maddrs"
    if error.errno == errno.EACCES:
        return f"port {port} needs special rights: name one above 1023 with --host-maddrs"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{maddr} is not an address of this machine: use /ip4/0.0.0.0/tcp/{port} with --host-maddrs"
    return f"cannot listen at {maddr}: {error.strerror or error}"


def error_of_p2pd(words: str, initial_peers: Sequence[str]) -> ConfigError:
    """What to tell a person when p2pd did not start and said `words`."""
    if "bootstrap" in words:
        return nobody_answers(initial_peers)
    if "announce_maddrs" in words:
        return ConfigError("--announce-maddrs needs the port that others dial, not 0")
    words = re.sub(r"^Daemon failed to start: (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d )?", "", words)
    sentence = f"the network could not be started: {words.strip() or 'p2pd said nothing for too long'}"
    return ConfigError(sentence[:400])


def nobody_answers(initial_peers: Sequence[str]) -> NobodyAnswers:
    """What to tell a person whose initial peers are all silent."""
    return NobodyAnswers(
        f"none of the initial peers answers ({', '.join(initial_peers)[:300]}): check that one of them runs, "
        "and that this machine reaches its address and port"
    )


def first_line(error: BaseException) -> str:
    """What p2pd has to say about a peer that cannot be had, without its frame."""
    return re.sub(r"^Connect failed\. msg=", "", str(error)).partition("\n")[0][:200] or type(error).__name__
