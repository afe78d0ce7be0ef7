"""What the operator has set for the core."""

from dataclasses import dataclass, field

from bot.receiving.haste import Patience
from bot.receiving.limits import Letters
from bot.turns.bookkeeping import Wishes
from bot.turns.limits import TurnLimits
from bot.turns.queue import Bounds
from storage.amounts import Rates
from storage.rate import Rate


@dataclass(frozen=True, slots=True)
class Rules:
    """All of it."""

    rates: Rates = field(default_factory=Rates)
    bounds: Bounds = field(default_factory=Bounds)
    rate: Rate = field(default_factory=lambda: Rate(burst=5, interval_ms=6000))
    patience: Patience = field(default_factory=Patience)
    wishes: Wishes = field(default_factory=Wishes)
    place_notice: str = ""
    """Said in each place once, before what was written there leaves for the swarm; "" says nothing."""
    attachment_bytes: int = 65_536
    """Of the text files that come with a message; 0: none is read."""
    retention_days: int = 30
    person_notice: str = ""
    """Said once below the first answer that somebody gets."""
    turn: TurnLimits = field(default_factory=TurnLimits)
    letters: Letters = field(default_factory=Letters)
    consent_notice: str = ""
    """What people have to agree to before anything of theirs is processed; "": nothing."""
