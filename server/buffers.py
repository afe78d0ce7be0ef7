"""Memory beside KV pages and replay logs that clients can fill."""

from swarm.allowance import Allowances


class Buffers:
    """What clients may make this server hold in memory beside KV and logs, over all of their sessions."""

    def __init__(self) -> None:
        self.accepted = Allowances(per_peer=128 << 20, in_all=1 << 30)
        """Steps that came and have not run."""
        self.queued = Allowances(per_peer=256 << 20, in_all=2 << 30)
        """Results that a slow successor, or the client itself, has not taken."""
