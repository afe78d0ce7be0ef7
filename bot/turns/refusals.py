"""Answers that may not be shown where they were asked for: whoever asked is told so, privately."""

import logging

from bot.clock import Clock
from bot.once import Once
from bot.sending.outbound import Writes
from bot.turns.run import Run
from bot.turns.troubles import trouble_of
from bot.words import Inbound, Refused, SendError

logger = logging.getLogger(__name__)

HOUR_S = 3600.0


class Refusals:
    """Remembers who was told of which place."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = Once(HOUR_S)

    async def tell(self, run: Run, error: Refused) -> None:
        """Tell the asker, once an hour for each place, as far as the platform lets us."""
        where, author = run.origin.where, run.origin.author
        if not self._told.is_first((where.platform, where.place, author.external_id), self._clock.now_s()):
            return
        try:
            await _tell(run, trouble_of(error, "").sentence)
        except SendError as refusal:
            logger.info("turn %s: nobody could be told that it may not be shown: %s", run.turn_id, refusal)


async def _tell(run: Run, sentence: str) -> None:
    """Below the message if that is not refused like all that is said there, else in a chat of two."""
    origin, port = run.origin, run.port
    try:
        await port.tell(Inbound(origin.event_id, origin.where, origin.author, "", origin.sent_ms), sentence)
    except Refused:
        if not isinstance(port, Writes):
            raise
        await port.write_to(origin.author.external_id, sentence)
