"""The parts of a running bot that are looked at by those who watch over it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bot.clock import Clock
from bot.vitals import Vitals
from storage.database import Database


class Turns(Protocol):
    """The core, as far as it is looked at."""

    @property
    def num_waiting(self) -> int:
        """Turns that wait."""

    @property
    def num_running(self) -> int:
        """Turns that run."""


class Sessions(Protocol):
    """The sessions of the model, as far as they are looked at."""

    @property
    def num_live(self) -> int:
        """Those that are open."""

    @property
    def num_rebuilding(self) -> int:
        """Those whose servers are being told a conversation again."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A bot that runs."""

    store: Database
    clock: Clock
    platforms: Mapping[str, Callable[[], Vitals]]
    turns: Turns
    sessions: Sessions
    swarm_trouble: Callable[[], str]
    """What the swarm lacks, as a sentence; "" if every block is served."""

    def trouble_of(self, platform: str) -> str:
        """What is wrong with a platform, as a sentence; "" if nothing is."""
        trouble = self.platforms[platform]().trouble()
        return f"{platform} {trouble}" if trouble else ""

    def is_connected(self) -> bool:
        """All platforms are heard."""
        return not any(self.trouble_of(platform) for platform in self.platforms)
