"""Looking in a channel: for what we have said there, after a crash that forgot it, or a lost answer; and for
what people have deleted there.

Discord shows no nonces in its history: a message is known by its buttons, or else because it is a reply of
ours to the prompt that no turn knows to be its own.
"""

from collections.abc import Callable, Sequence

import discord

from bot.clock import Clock
from bot.on_discord.buttons import key_below
from bot.on_discord.errors import UNKNOWN_MESSAGE, RefusedWith, translated
from bot.words import Where
from storage.conversations import open_place, turn_behind
from storage.database import Database, Transaction

MOST_MESSAGES = 100
"""That we look at in one go: as many as one page of a channel's history has."""


class History:
    """What we have said in channels."""

    def __init__(self, client: Callable[[], discord.Client], store: Database, clock: Clock) -> None:
        self._client = client
        self._store = store
        self._clock = clock

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        """The ids of our replies to `reply_to` by key, as far as they are there.

        Raises Refused, Limited, Unreachable.
        """
        replies = await self._replies(where, int(reply_to))
        named = {key: str(reply.id) for reply in replies if (key := key_below(reply)) in keys and key}
        unnamed = [str(reply.id) for reply in replies if key_below(reply) is None]
        unknown = await self._store.write(self._unknown, where, unnamed)
        left = [key for key in keys if key not in named]
        return named | dict(zip(left, unknown, strict=False))

    async def _replies(self, where: Where, prompt_id: int) -> list[discord.Message]:
        """Our replies to a message, the oldest first."""
        channel = self._client().get_partial_messageable(int(where.place))
        me = self._client().user
        prompt = discord.Object(prompt_id)
        found: dict[int, discord.Message] = {}
        async with translated():
            for oldest_first in (True, False):
                read = channel.history(limit=MOST_MESSAGES, after=prompt, oldest_first=oldest_first)
                found |= {message.id: message async for message in read}
        return [
            message
            for _, message in sorted(found.items())
            if me is not None and message.author.id == me.id and _is_below(message, where, prompt_id)
        ]

    def _unknown(self, connection: Transaction, where: Where, message_ids: Sequence[str]) -> list[str]:
        """Those messages that belong to no turn yet."""
        place = open_place(connection, where.platform, where.place, self._clock.now_ms())
        return [one for one in message_ids if turn_behind(connection, place.place_id, one) is None]


def _is_below(message: discord.Message, where: Where, prompt_id: int) -> bool:
    """It replies to the prompt, or stands in the thread that was made of it, and replies to nothing."""
    if message.reference is None:
        return where.place == str(prompt_id)
    return message.reference.message_id == prompt_id


async def find_deleted(
    place_id: int,
    channel: discord.abc.Messageable,
    around: discord.abc.Messageable,
    known: Sequence[int],
) -> list[int]:
    """Those of the messages `known` that are not there any more, as far as the newest page goes back.

    What is missing between two messages of the page is gone. Of all else that alone proves nothing: who may
    not read a channel is shown an empty page. So Discord is asked for it by its id. The message that a thread
    was made of has the thread's id and stands in the channel `around` it. Raises Refused, Limited or
    Unreachable.
    """
    async with translated():
        page = [message.id async for message in channel.history(limit=MOST_MESSAGES)]
    newest, oldest = max(page, default=0), min(page, default=0)
    gone: list[int] = []
    for each in sorted(set(known) - set(page), reverse=True):
        where = (channel, around) if each == place_id else (channel,)
        is_beyond = each < oldest and len(page) == MOST_MESSAGES and each != place_id
        if not is_beyond and (oldest < each < newest or await _is_gone(where, each)):
            gone.append(each)
    return gone


async def _is_gone(channels: Sequence[discord.abc.Messageable], message_id: int) -> bool:
    """Discord knows no such message in any of these channels."""
    for channel in channels:
        try:
            async with translated():
                await channel.fetch_message(message_id)
        except RefusedWith as error:
            if error.code != UNKNOWN_MESSAGE:
                raise
        else:
            return False
    return True
