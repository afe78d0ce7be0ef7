"""What commands are carried out with, and what one of them is told."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bot.bookkeeping import Books
from bot.brain import Brain
from bot.conversations import Asker
from bot.outbound import Outbound
from bot.reception import Desk
from bot.turn_queue import TurnQueue
from bot.words import Inbound
from storage.transcript import Said

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Order:
    """A command as somebody gave it."""

    inbound: Inbound
    asker: Asker
    arguments: Mapping[str, str]


Handler = Callable[[CommandDesk, Order], Awaitable[str]]
"""Does what is asked and returns what to say about it; "" if that shows by itself."""
