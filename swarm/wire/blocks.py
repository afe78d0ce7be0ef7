"""Words for "which blocks, on whom": half-open spans, hops, and the ids of peers and sessions."""

import re
from dataclasses import dataclass
from typing import NewType

PeerId = NewType("PeerId", str)
"""libp2p peer id in base58, as `12D3Koo...`: it contains the peer's Ed25519 public key."""

SessionId = NewType("SessionId", bytes)
"""128 random bits. A session is named by (client peer id, session id), never by the id alone."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Consecutive transformer blocks `[start, end)`.

    `Span(2, 5)` is blocks 2, 3 and 4. Raises ValueError if it is empty or starts below zero.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a span needs 0 <= start < end, not {self.start}:{self.end}")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"

    def contains(self, other: "Span") -> bool:
        """Tell whether every block of `other` is one of ours."""
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True, slots=True)
class Hop:
    """A peer and the part of its span that a route uses."""

    peer_id: PeerId
    span: Span


Route = tuple[Hop, ...]
"""Hops that cover every block once, in order."""


def parse_span(text: str) -> Span:
    """Read `A:B`. Raises ValueError with a sentence if `text` is anything else."""
    start, colon, end = text.partition(":")
    is_number = all(re.fullmatch("[0-9]{1,5}", part) for part in (start, end))
    if not (colon and is_number and int(start) < int(end)):
        raise ValueError(f"{text[:40]!r} is not a block range; write A:B with A < B, for example 0:8")
    return Span(int(start), int(end))
