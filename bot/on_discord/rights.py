"""Whether we may write where somebody asks us something: known before an answer is, as far as it can be.

An answer that nobody can see is not worth its time on the servers, and silence is no answer either.
"""

import logging
from collections.abc import Callable

import discord

from bot.clock import Clock
from bot.on_discord.elsewhere import is_elsewhere
from bot.on_discord.errors import translated
from bot.on_discord.receipts import NO_MENTIONS, Asked
from bot.once import Once
from bot.words import SendError

logger = logging.getLogger(__name__)

HERE = "here"
LACKS = "I may not write {where}: a moderator can give me {right}."
IS_LOCKED = "I may not write {where}: the thread is locked."
TOLD_AGAIN_S = 3600.0

Speaker = discord.User | discord.Member


class Rights:
    """Asked about each place. `opens_threads` tells whether questions there get threads of their own."""

    def __init__(self, clock: Clock) -> None:
        self.opens_threads: Callable[[int], bool] = lambda channel_id: False
        self._clock = clock
        self._told = Once(TOLD_AGAIN_S)

    def missing_for(self, asked: Asked, *, is_new: bool) -> str:
        """Why an interaction cannot be answered by a message, as a sentence; "" if nothing is known.

        `is_new`: it begins a conversation, which may get a thread.
        """
        if asked.guild_id is None or is_elsewhere(asked):
            return ""
        may_have_thread = is_new and self.opens_threads(asked.channel_id or 0)
        return _missing(asked.channel, asked.app_permissions, HERE, may_have_thread=may_have_thread)

    def missing_below(self, message: discord.Message, me: discord.ClientUser) -> str:
        """Why a message cannot be answered, as a sentence for elsewhere; "" if nothing is known."""
        channel, guild = message.channel, message.guild
        if guild is None or not isinstance(channel, discord.abc.GuildChannel | discord.Thread):
            return ""
        own = guild.get_member(me.id)
        if own is None:
            return ""
        try:
            may = channel.permissions_for(own)
        except discord.ClientException:  # a thread below a channel that we do not see
            return ""
        may_have_thread = self.opens_threads(channel.id)
        return _missing(channel, may, f"in <#{channel.id}>", may_have_thread=may_have_thread)

    async def tell(self, speaker: Speaker, channel_id: int, sentence: str) -> None:
        """Say it in private, to the first in an hour who wants something there, if they let us."""
        if not self._told.is_first(channel_id, self._clock.now_s()):
            return
        try:
            async with translated():
                await speaker.send(sentence, allowed_mentions=NO_MENTIONS, suppress_embeds=True)
        except SendError as error:
            logger.info("nobody could be told that channel %s is closed to us: %s", channel_id, error)


def _missing(channel: object, may: discord.Permissions, where: str, *, may_have_thread: bool) -> str:
    """What keeps us from writing in a channel; "" if nothing does."""
    if may.administrator:
        return ""
    is_thread = isinstance(channel, discord.Thread)
    if isinstance(channel, discord.Thread) and channel.locked and not may.manage_threads:
        return IS_LOCKED.format(where=where)
    right = _missing_right(may, is_thread=is_thread, may_have_thread=may_have_thread)
    return LACKS.format(where=where, right=right) if right else ""


def _missing_right(may: discord.Permissions, *, is_thread: bool, may_have_thread: bool) -> str:
    """The first right that is missing, as Discord names it where rights are given."""
    if not may.view_channel:
        return "View Channel"
    if is_thread:
        return "" if may.send_messages_in_threads else "Send Messages in Threads"
    if may_have_thread and may.create_public_threads and may.send_messages_in_threads:
        return ""
    return "" if may.send_messages else "Send Messages"
