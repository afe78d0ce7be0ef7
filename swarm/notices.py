"""What a session tells those who are curious, or wait for it."""

from dataclasses import dataclass

from swarm.wire.blocks import PeerId


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person who waits may want to know."""

    kind: str
    """`lost`: a server is gone. `full`: one has no room, another is taken. `busy`: none has room now.
    `recovered`: the answer goes on after `pause_s`; it follows `lost` and `full`."""
    reason: str = ""
    peers: frozenset[PeerId] = frozenset()
    pause_s: float = 0.0


@dataclass(slots=True)
class Counters:
    """Messages of this session, for the tests and the curious."""

    steps_out: int = 0
    results_in: int = 0
    direct_links: int = 0
    relayed_frames: int = 0
    rebinds: int = 0
