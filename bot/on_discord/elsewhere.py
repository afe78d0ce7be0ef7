"""Places where the bot is no member: people who have installed it for themselves use it there.

Only the interaction's own webhook exists there, for fifteen minutes, without nonces and without a history.
"""

from collections import OrderedDict
from typing import Any

import discord

from bot.clock import Clock
from bot.on_discord.errors import translated
from bot.on_discord.receipts import NO_MENTIONS, TOKEN_S, Asked
from bot.words import Refused

MOST_QUESTIONS = 500
MOST_ANSWERS = 1000


def is_elsewhere(asked: Asked) -> bool:
    """Whether the bot can say something there only as an answer to this interaction."""
    is_own_chat = isinstance(asked.channel, discord.DMChannel) and asked.context.dm_channel
    return asked.is_user_integration() and not asked.is_guild_integration() and not is_own_chat


class Elsewhere:
    """The latest questions from such places, and what was answered to them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._questions: OrderedDict[str, tuple[Asked, float]] = OrderedDict()
        self._answers: OrderedDict[str, Asked] = OrderedDict()

    def keep(self, event_id: str, asked: Asked) -> None:
        """A question that is to be answered there."""
        self._questions[event_id] = (asked, self._clock.now_s() + TOKEN_S)
        if len(self._questions) > MOST_QUESTIONS:
            self._questions.popitem(last=False)

    def has(self, event_id: str) -> bool:
        """It was asked there."""
        return event_id in self._questions

    def has_answer(self, message_id: str) -> bool:
        """It was answered there."""
        return message_id in self._answers

    async def answer(self, event_id: str, text: str, **more: Any) -> str:
        """Say something; returns the message's id. Raises Refused if it is too late, Limited, Unreachable."""
        asked, until_s = self._questions[event_id]
        if self._clock.now_s() > until_s:
            raise Refused("a question from a place where we are no member is too old to be answered")
        async with translated():
            message = await asked.followup.send(
                text, wait=True, allowed_mentions=NO_MENTIONS, suppress_embeds=True, **more
            )
        self._answers[str(message.id)] = asked
        if len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)
        return str(message.id)

    async def edit(self, message_id: str, text: str, **more: Any) -> None:
        """Show something else. Raises Refused, Limited, Unreachable."""
        async with translated():
            await self._answers[message_id].followup.edit_message(
                int(message_id), content=text, allowed_mentions=NO_MENTIONS, **more
            )

    async def remove(self, message_id: str) -> None:
        """Take an answer away. Raises Refused, Limited, Unreachable."""
        async with translated():
            await self._answers[message_id].followup.delete_message(int(message_id))
