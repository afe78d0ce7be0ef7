"""Threads that we open for conversations which begin in a channel, each made of the message that began it.

Such a thread has its message's id, so a message has at most one: whoever opens it again finds it.
"""

import logging
import re
import unicodedata
from collections.abc import Callable

import discord
import msgspec

from bot.clock import Clock
from bot.on_discord.elsewhere import Elsewhere
from bot.on_discord.errors import HAS_THREAD, RefusedWith, translated
from bot.on_discord.events import PLATFORM
from bot.on_discord.places import Places, thread_marker
from bot.once import Once
from bot.receiving.access import Access
from bot.rendering.splitting import utf16_units
from bot.words import Inbound, Limited, Refused, Unreachable, Where
from storage.conversations import find_place, turn_behind
from storage.database import Database, Transaction
from storage.inbox import set_marker

logger = logging.getLogger(__name__)

MAX_NAME_LETTERS = 90
UNNAMED = "Conversation"
AGAIN_S = (1.0, 4.0)
SAID_AGAIN_S = 30 * 86_400.0
"""A refusal is in the log once for each channel, as good as."""
REFUSED = "no thread can be opened in channel %s, so answers stand in the channel itself: %s"
LACKS = "the bot lacks the right to create public threads there, or to send messages in them"
_NAMES_SOMETHING = re.compile(
    r"<(?:@[!&]?|#|a?:\w{1,32}:|/[^:>]{1,80}:|t:-?)\d{1,20}[^>\s]{0,3}>|@(?:everyone|here)\b"
)
_MARKUP = re.compile(r"[`*_~|>#\\]+")


class Threads:
    """Opens threads where the operator, or a moderator of the channel, wants them."""

    def __init__(
        self,
        client: Callable[[], discord.Client],
        store: Database,
        clock: Clock,
        elsewhere: Elsewhere,
        places: Places,
        access: Access,
    ) -> None:
        self.by_default = False
        self._client = client
        self._store = store
        self._clock = clock
        self._elsewhere = elsewhere
        self._places = places
        self._access = access
        self._refused = Once(SAID_AGAIN_S)

    async def open(self, inbound: Inbound) -> Inbound:
        """What was said, in its own thread if it begins a conversation in a channel that has them."""
        if not await self._wants_one(inbound) or not await self._is_there(inbound):
            return inbound
        markers = self._places.note(int(inbound.event_id), int(inbound.event_id))
        await self._store.write(_note_thread, inbound.event_id, markers)
        return msgspec.structs.replace(
            inbound, where=Where(PLATFORM, inbound.event_id, "thread"), reply_to=""
        )

    async def _wants_one(self, inbound: Inbound) -> bool:
        where = inbound.where
        if where.kind != "group" or self._elsewhere.has(where.place, inbound.event_id):
            return False
        if not self.are_wanted(where.place):
            return False
        if not inbound.reply_to:
            return True
        return not await self._store.read(_goes_on, where, inbound.reply_to)

    def are_wanted(self, channel_id: int | str) -> bool:
        """Conversations that begin in that channel get threads, if they can."""
        said = self._access.habits.is_on("threads", PLATFORM, str(channel_id))
        return self.by_default if said is None else said

    async def _is_there(self, inbound: Inbound) -> bool:
        """Whether the thread is there now."""
        if self._lacks_right(int(inbound.where.place)):
            self._say_refused(inbound, LACKS)
            return False
        try:
            await self._open_patiently(inbound)
        except RefusedWith as error:
            if error.code == HAS_THREAD:
                return True
            self._say_refused(inbound, str(error))
        except (Refused, Limited, Unreachable) as error:
            logger.warning("message %s gets no thread: %s", inbound.event_id, error)
        else:
            return True
        return False

    async def _open_patiently(self, inbound: Inbound) -> None:
        for wait_s in AGAIN_S:
            try:
                return await self._open(inbound)
            except (Unreachable, Limited):
                await self._clock.sleep(wait_s)
        return await self._open(inbound)

    async def _open(self, inbound: Inbound) -> None:
        client = self._client()
        async with translated():
            await client.http.start_thread_with_message(
                int(inbound.where.place),
                int(inbound.event_id),
                name=name_of(inbound.text),
                auto_archive_duration=1440,
            )

    def _lacks_right(self, channel_id: int) -> bool:
        """Discord would refuse, as far as we know; each refusal counts against the account."""
        channel, user = self._client().get_channel(channel_id), self._client().user
        if not isinstance(channel, discord.TextChannel) or user is None:
            return False
        me = channel.guild.get_member(user.id)
        if me is None:
            return False
        may = channel.permissions_for(me)
        return not (may.create_public_threads and may.send_messages_in_threads)

    def _say_refused(self, inbound: Inbound, reason: str) -> None:
        if self._refused.is_first(inbound.where.place, self._clock.now_s()):
            logger.warning(REFUSED, inbound.where.place, reason)


def name_of(text: str) -> str:
    """A thread's name: the first words of what was asked, without markup and what cannot be seen."""
    plain = _MARKUP.sub("", _NAMES_SOMETHING.sub(" ", text[: 10 * MAX_NAME_LETTERS]))
    seen = "".join(" " if unicodedata.category(each)[0] in "CZ" else each for each in plain)
    words = " ".join(seen.split())
    if utf16_units(words) <= MAX_NAME_LETTERS:
        return words or UNNAMED
    while utf16_units(words) >= MAX_NAME_LETTERS:
        words = words[:-1]
    whole = words.rpartition(" ")[0]
    return f"{whole if 2 * len(whole) > len(words) else words}…"


def _goes_on(connection: Transaction, where: Where, reply_to: str) -> bool:
    """Whoever replies to that goes on with a conversation of the channel."""
    place_id = find_place(connection, PLATFORM, where.place)
    return place_id is not None and turn_behind(connection, place_id, reply_to) is not None


def _note_thread(connection: Transaction, thread_id: str, markers: dict[str, str]) -> None:
    for name, value in (markers | {thread_marker(thread_id): "ours"}).items():
        set_marker(connection, PLATFORM, name, value)
