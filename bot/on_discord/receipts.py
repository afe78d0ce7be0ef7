"""Commands and buttons that people wait behind: acknowledged at once, answered when the core has an answer.

Discord gives three seconds to acknowledge, and then fifteen minutes in which the interaction's token answers.
"""

import logging
from collections import OrderedDict
from dataclasses import dataclass

import discord

from bot.clock import Clock
from bot.on_discord.attachments import with_file
from bot.on_discord.errors import translated
from bot.words import File, Refused, SendError
from swarm.background import RunningGroup

logger = logging.getLogger(__name__)

MOST_RECEIPTS = 1000
TOKEN_S = 14 * 60.0
"""A minute less than Discord gives."""
SILENT_S = 2.5
"""Commands whose effect shows by itself say nothing; after so long their placeholder goes."""
PATIENCE_S = 60.0
ANSWERED_S = TOKEN_S - 10.0
"""A whole answer may take so long, and then there is time to excuse it."""
LOST = "Something went wrong here; please try again."
ACKNOWLEDGE_S = 3.0
NO_MENTIONS = discord.AllowedMentions.none()

Asked = discord.Interaction[discord.Client]


@dataclass(slots=True)
class Receipt:
    """An interaction that was acknowledged."""

    interaction: Asked
    at_s: float
    is_waiting: bool
    """The person sees that we think, until we say something or take it away."""
    is_silent: bool
    patience_s: float
    """So long they may see that."""


class Receipts:
    """The latest interactions, by the id of the event that was made of them."""

    def __init__(self, clock: Clock, group: RunningGroup) -> None:
        self._clock = clock
        self._group = group
        self._num_waiting = 0
        self._kept: OrderedDict[str, Receipt] = OrderedDict()

    async def wait_privately(self, event_id: str, asked: Asked, *, is_private: bool, is_silent: bool) -> bool:
        """Acknowledge a command whose answer comes later; False if that was too late, or done before."""
        patience_s = SILENT_S if is_silent else PATIENCE_S
        return await self._defer(event_id, asked, (is_private, True, is_silent), patience_s)

    async def wait_for_answer(self, event_id: str, asked: Asked) -> bool:
        """Acknowledge a command whose placeholder a whole answer takes, and that may take its time."""
        return await self._defer(event_id, asked, (False, True, False), ANSWERED_S)

    def note_answered(self, event_id: str) -> None:
        """Something is said in place of the placeholder; nothing happens if there is none."""
        receipt = self._kept.get(event_id)
        if receipt is not None:
            receipt.is_waiting = False

    async def take_press(self, event_id: str, asked: Asked) -> bool:
        """Acknowledge a button without a change of its message; False as above."""
        return await self._defer(event_id, asked, (True, False, True), SILENT_S)

    def get(self, event_id: str) -> Receipt | None:
        """An interaction that may still be answered."""
        receipt = self._kept.get(event_id)
        if receipt is None or self._clock.now_s() - receipt.at_s > TOKEN_S:
            return None
        return receipt

    async def answer(self, event_id: str, text: str, file: File | None = None) -> bool:
        """Say something to the person alone; False if the interaction is too old, or not known (any more).

        Raises Limited, Unreachable.
        """
        receipt = self.get(event_id)
        if receipt is None:
            return False
        receipt.is_waiting = False
        try:
            async with translated():
                await receipt.interaction.followup.send(
                    text,
                    ephemeral=True,
                    allowed_mentions=NO_MENTIONS,
                    suppress_embeds=True,
                    wait=True,
                    **with_file(file),
                )
        except Refused as error:
            logger.info("an interaction takes no answer any more: %s", error)
            return False
        return True

    async def _defer(
        self, event_id: str, asked: Asked, how: tuple[bool, bool, bool], patience_s: float
    ) -> bool:
        is_private, is_waiting, is_silent = how
        try:
            async with translated(ACKNOWLEDGE_S):
                await asked.response.defer(ephemeral=is_private, thinking=is_waiting)
        except SendError as error:
            logger.warning("an interaction was not acknowledged: %s", error)
            return False
        except discord.InteractionResponded:
            return False
        receipt = Receipt(asked, self._clock.now_s(), is_waiting, is_silent, patience_s)
        self._kept[event_id] = receipt
        if len(self._kept) > MOST_RECEIPTS:
            self._kept.popitem(last=False)
        if is_waiting and self._num_waiting < MOST_RECEIPTS:
            self._group.create_task(self._end_waiting(event_id, receipt))
        return True

    async def _end_waiting(self, event_id: str, receipt: Receipt) -> None:
        """Nobody waits for ever: what says nothing goes, what should have said something is excused."""
        self._num_waiting += 1
        try:
            await self._clock.sleep(receipt.patience_s)
        finally:
            self._num_waiting -= 1
        if not receipt.is_waiting:
            return
        try:
            if not receipt.is_silent:
                await self.answer(event_id, LOST)
                return
            receipt.is_waiting = False
            async with translated():
                await receipt.interaction.delete_original_response()
        except SendError as error:
            logger.info("a placeholder stays: %s", error)
