"""How a platform's connection is, as the adapter tells those who watch over the bot. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vitals:
    """A connection now. `most_age_s`: who has not been heard for longer is gone."""

    is_ready: bool
    heard_age_s: float | None
    """How long ago the platform was last heard; None: never."""
    most_age_s: float
    latency_s: float | None = None
    """How long it takes to answer, where that is known."""
    num_unreadable: int = 0
    """Messages since the start that could not be decrypted when they came."""

    def trouble(self) -> str:
        """What is wrong, as the end of a sentence about the platform; "" if nothing is."""
        if not self.is_ready or self.heard_age_s is None:
            return "is not connected yet: look at the log, and at its status page"
        if self.heard_age_s >= self.most_age_s:
            return (
                f"was last heard {self.heard_age_s:.0f} s ago, and {self.most_age_s:.0f} s is the limit: "
                "see whether it can be reached from here"
            )
        if self.latency_s is not None and self.latency_s >= self.most_age_s:
            return (
                f"takes {self.latency_s:.0f} s to answer, and {self.most_age_s:.0f} s is the limit: "
                "this machine or the way there is overloaded"
            )
        return ""
