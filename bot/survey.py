"""What a swarm looks like at one moment, and how a conversation's session is, as plain data. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.commands.status_report import Report

Reach = Literal["machine", "network", "internet"]
"""From where a swarm can be joined: its own machine alone, its network, everywhere."""


@dataclass(frozen=True, slots=True)
class Survey:
    """One model's swarm. `report` has its servers, with their spans, speeds, states and free KV tokens."""

    report: Report
    tokens_per_s: float = 0.0
    """Along the best route; 0 if there is none."""
    is_measured: bool = False
    """It is the speed of the newest answers; otherwise the most that the servers' own words allow."""
    model: str = ""
    """What names the model in a command line: a Hub id, or the path of a folder."""
    is_folder: bool = False
    """The model is on the bot's machine alone; others need its files first."""
    peers: tuple[str, ...] = ()
    """Addresses through which the swarm is joined, a few."""
    reach: Reach = "internet"

    @property
    def thinnest(self) -> tuple[int, ...]:
        """The blocks that have the fewest servers."""
        counts = self.report.num_servers_by_block
        return tuple(block for block, count in enumerate(counts) if count == min(counts))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A model that is named in the configuration, and why nothing is known of it."""

    name: str
    reason: str


SessionKind = Literal["live", "detached", "parked", "rebuilding", "failed", "none"]


@dataclass(frozen=True, slots=True)
class SessionState:
    """A conversation's session. Of a `rebuilding` one `num_done` of `num_tokens` are told to the servers.

    `live`: open. `detached`: its servers keep it, and it is attached to again. `parked`: only what was said
    is kept. `failed`: it broke, and what is asked next is told anew. `none`: nothing was said yet.
    """

    kind: SessionKind
    num_done: int = 0
    num_tokens: int = 0
    has_servers: bool = True
    """Of one that is open: servers have been found for it."""


Surveys = Sequence[Survey | Unknown]
