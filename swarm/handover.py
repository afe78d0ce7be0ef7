"""Servers that are about to stop and can still hand over what they hold (pure)."""

from dataclasses import dataclass, field

from swarm.wire.blocks import Hop, PeerId


@dataclass(frozen=True, slots=True)
class Retiring:
    """One such server: the part of the route that it was, and how often the path had visited it."""

    hop: Hop
    slot: int


@dataclass(slots=True)
class Handover:
    """Who hands over, and which stages of the route now bound receive."""

    retiring: dict[PeerId, Retiring] = field(default_factory=dict)
    receiving: dict[int, PeerId] = field(default_factory=dict)

    def begin(self, stages: dict[int, PeerId]) -> None:
        """Pages go to these stages, from these servers."""
        self.receiving = stages

    def source_for(self, hop: Hop) -> PeerId | None:
        """A retiring server that holds all blocks of a newcomer's hop; None for the server itself."""
        if hop.peer_id in self.retiring:
            return None
        holders = (r.hop.peer_id for r in self.retiring.values() if r.hop.span.contains(hop.span))
        return next(holders, None)

    def involves(self, peers: frozenset[PeerId]) -> bool:
        """Tell whether pages are under way from one of `peers`."""
        return any(peer in peers for peer in self.receiving.values())

    def forget(self, peers: frozenset[PeerId]) -> None:
        """These servers cannot hand over any more."""
        for peer in peers:
            self.retiring.pop(peer, None)
        self.receiving = {stage: peer for stage, peer in self.receiving.items() if peer not in peers}

    def end(self) -> list[PeerId]:
        """Everything is in place: returns the servers to say goodbye to."""
        gone = list(self.retiring)
        self.retiring.clear()
        self.receiving.clear()
        return gone
