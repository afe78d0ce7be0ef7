"""What commands are carried out with, and what one of them is told."""

import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

from bot.brain import Brain
from bot.once import Once
from bot.receiving.conversations import Asker
from bot.receiving.reception import Desk
from bot.sending.outbound import Outbound
from bot.turns.bookkeeping import Books
from bot.turns.queue import TurnQueue
from bot.words import File, Inbound
from storage.transcript import Said

logger = logging.getLogger(__name__)


CONFIRM_S = 60.0
MOST_CONFIRMATIONS = 1000
ADMINS_TOLD_S = 60.0
"""Of many reports admins are told once, and `admin reports` has them all."""


class Confirmations:
    """What somebody has said once that must be said twice."""

    def __init__(self) -> None:
        self._said_s: dict[Hashable, float] = {}

    def is_second(self, key: Hashable, now_s: float) -> bool:
        """Tell whether it was said a moment ago, too; if not, remember it for a minute."""
        recent = {each: at_s for each, at_s in self._said_s.items() if now_s - at_s < CONFIRM_S}
        is_second = recent.pop(key, None) is not None
        if not is_second and len(recent) < MOST_CONFIRMATIONS:
            recent[key] = now_s
        self._said_s = recent
        return is_second


@dataclass(frozen=True, slots=True)
class CommandDesk:
    """All that commands work with."""

    desk: Desk
    books: Books
    brain: Brain
    ports: Mapping[str, Outbound]
    queue: TurnQueue
    stop: Callable[[str], None]
    enqueue: Callable[[Said], Awaitable[str]]
    leave: Callable[[], None] = lambda: None
    """Begin to end the bot's work."""
    take_up_kept: Callable[[str, str], Awaitable[int]] = field(kw_only=True)
    """Deals with what a person of a platform has said before they agreed to be answered."""
    end_turns_of: Callable[[int], Awaitable[None]] = field(kw_only=True)
    """Ends the turns of an account, and waits until nothing of them is done any more."""
    confirmations: Confirmations = field(default_factory=Confirmations)
    admins_told: Once = field(default_factory=lambda: Once(ADMINS_TOLD_S))


@dataclass(frozen=True, slots=True)
class Order:
    """A command as somebody gave it."""

    inbound: Inbound
    asker: Asker
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Told:
    """What to say about a command, with a file for the person who gave it."""

    text: str
    file: File | None = None


Handler = Callable[[CommandDesk, Order], Awaitable[str | Told]]
"""Does what is asked and returns what to say about it; "" if that shows by itself."""
