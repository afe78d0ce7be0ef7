"""The way out to Discord: posts, edits, reactions, private sentences. See bot.outbound.

Nothing that we send pings anybody, and no link in it grows a preview.
"""

import io
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import discord

from bot.clock import Clock
from bot.commands.catalogue import COMMANDS
from bot.on_discord.buttons import view_of
from bot.on_discord.elsewhere import Elsewhere
from bot.on_discord.errors import (
    CANNOT_READ_HISTORY,
    CANNOT_WRITE_TO_PERSON,
    UNKNOWN_MESSAGE,
    RefusedWith,
    translated,
)
from bot.on_discord.history import History
from bot.on_discord.receipts import NO_MENTIONS, Receipts
from bot.pacer import Pacer
from bot.pacing import ChannelPace, Pace, Priority
from bot.rendering.splitting import split, utf16_units
from bot.words import Inbound, Limits, Post, Where

logger = logging.getLogger(__name__)

LETTERS = 1900
MOST_PACERS = 500
MOST_TRIED = 1000
NONCE_S = 100.0
"""Discord forgets a nonce after some minutes; after so long we look ourselves whether a message is there."""
NOTHING = "(nothing)"
CLOCK = "🕒"
SEEN = "👀"
MOST_TOLD_PARTS = 3
TOLD_IN_PLACE_LETTERS = 300
NO_DIRECT_MESSAGES = "I cannot write to you privately: allow direct messages from members of this server."


class DiscordPort:
    """One bot account on Discord."""

    def __init__(
        self,
        client: Callable[[], discord.Client],
        receipts: Receipts,
        elsewhere: Elsewhere,
        history: History,
        clock: Clock,
        pace: Callable[[], Pace] = ChannelPace,
    ) -> None:
        self.limits = Limits(LETTERS)
        self.shows_seen = False
        """Whether a message that was accepted gets a reaction."""
        self.pings_on_reply = False
        self._client = client
        self._receipts = receipts
        self._elsewhere = elsewhere
        self._history = history
        self._clock = clock
        self._pace = pace
        self._pacers: OrderedDict[str, Pacer] = OrderedDict()
        self._tried_s: OrderedDict[str, float] = OrderedDict()

    def size(self, text: str) -> int:
        """In UTF-16 units, as Discord counts."""
        return utf16_units(text)

    def pacer(self, where: Where) -> Pacer:
        """One for each channel; of too many the one that was used least recently is forgotten."""
        pacer = self._pacers.pop(where.place, None) or Pacer(self._pace(), self._clock)
        self._pacers[where.place] = pacer
        if len(self._pacers) > MOST_PACERS:
            self._pacers.popitem(last=False)
        return pacer

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        """Reply, once for each key: Discord knows those of the last minutes, and later we look."""
        if self._elsewhere.has(reply_to):
            more: dict[str, Any] = {"file": _file(post.file)} if post.file is not None else {}
            return await self._elsewhere.answer(reply_to, _shown(post.text), **more)
        tried_s = self._tried_s.get(post.key)
        message_id = None
        if tried_s is None or self._clock.now_s() - tried_s > NONCE_S:
            if tried_s is not None:
                message_id = (await self.find(where, reply_to, [post.key])).get(post.key)
            self._note_try(post.key)
        is_new = message_id is None and tried_s is None
        if message_id is None:
            message = await self._reply(where, reply_to, post)
            message_id = str(message.id)
            is_new = is_new and message.content == _shown(post.text).strip()
        if not is_new:  # it was there already, and may say what we wanted to say then
            await self.edit(where, message_id, post)
        self._tried_s.pop(post.key, None)
        return message_id

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        """Show another text, other buttons, and a file if there is one."""
        changed: dict[str, Any] = {"attachments": [_file(post.file)]} if post.file is not None else {}
        if self._elsewhere.has_answer(message_id):
            await self._elsewhere.edit(message_id, _shown(post.text), **changed)
            return
        async with translated():
            await self._message(where, message_id).edit(
                content=_shown(post.text), view=view_of(post), allowed_mentions=NO_MENTIONS, **changed
            )

    async def remove(self, where: Where, message_id: str) -> None:
        """Delete a message of ours."""
        try:
            if self._elsewhere.has_answer(message_id):
                await self._elsewhere.remove(message_id)
                return
            async with translated():
                await self._message(where, message_id).delete()
        except RefusedWith as error:
            logger.debug("a message was gone already: %s", error)
            if error.code != UNKNOWN_MESSAGE:
                raise

    async def find(self, where: Where, reply_to: str, keys: Sequence[str]) -> dict[str, str]:
        """Look in the channel for our replies to `reply_to`."""
        return await self._history.find(where, reply_to, keys)

    async def typing(self, where: Where) -> None:
        """Discord shows it for ten seconds, or until we write."""
        async with translated():
            await self._channel(where).typing()

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        """A clock below a message that waits; one that was seen is marked only if that was asked for."""
        message = self._message(where, event_id)
        me = self._client().user
        async with translated():
            if mark == "queued":
                await message.add_reaction(CLOCK)
            elif mark == "seen" and self.shows_seen:
                await message.add_reaction(SEEN)
            elif mark == "" and me is not None:
                await message.remove_reaction(CLOCK, me)

    async def tell(self, inbound: Inbound, text: str) -> None:
        """Below the command or button if there is one, else in a direct message, else in few words there."""
        for number, part in enumerate(split(text, LETTERS, utf16_units)[:MOST_TOLD_PARTS]):
            if await self._receipts.answer(inbound.event_id, part.text):
                continue
            if inbound.where.kind == "direct":
                await self._say(inbound, part.text, number)
                continue
            try:
                await self._write_privately(inbound, part.text, number)
            except RefusedWith as error:
                if error.code != CANNOT_WRITE_TO_PERSON:
                    raise
                await self._say(inbound, _for_all(inbound, text), number)
                return

    # --- what it is made of ----------------------------------------------------------------------------

    def _channel(self, where: Where) -> discord.PartialMessageable:
        return self._client().get_partial_messageable(int(where.place))

    def _message(self, where: Where, message_id: str) -> discord.PartialMessage:
        return self._channel(where).get_partial_message(int(message_id))

    def _note_try(self, key: str) -> None:
        self._tried_s[key] = self._clock.now_s()
        if len(self._tried_s) > MOST_TRIED:
            self._tried_s.popitem(last=False)

    async def _reply(self, where: Where, reply_to: str, post: Post) -> discord.Message:
        given: dict[str, Any] = {"nonce": post.key, "suppress_embeds": True}
        view = view_of(post)
        if view is not None:
            given["view"] = view
        reference = discord.MessageReference(
            message_id=int(reply_to), channel_id=int(where.place), fail_if_not_exists=False
        )
        try:
            return await self._send(where, post, given | {"reference": reference})
        except RefusedWith as error:
            if error.code != CANNOT_READ_HISTORY:
                raise
            return await self._send(where, post, given)

    async def _send(self, where: Where, post: Post, given: dict[str, Any]) -> discord.Message:
        if post.file is not None:
            given = given | {"file": _file(post.file)}
        async with translated():
            sent: discord.Message = await self._channel(where).send(
                _shown(post.text), allowed_mentions=self._mentions(), **given
            )
        return sent

    def _mentions(self) -> discord.AllowedMentions:
        return discord.AllowedMentions(
            everyone=False, users=False, roles=False, replied_user=self.pings_on_reply
        )

    async def _say(self, inbound: Inbound, text: str, number: int) -> None:
        """A sentence at the place itself, in its turn."""
        post = Post(text, f"t{number}{inbound.event_id}"[:25])
        where = inbound.where
        await self.pacer(where).send(Priority.NOTICE, None, lambda: self.post(where, inbound.event_id, post))

    async def _write_privately(self, inbound: Inbound, text: str, number: int) -> None:
        async with translated():
            person = discord.Object(int(inbound.author.external_id))
            direct = await self._client().create_dm(person)
            await direct.send(
                text,
                nonce=f"d{number}{inbound.event_id}"[:25],
                allowed_mentions=NO_MENTIONS,
                suppress_embeds=True,
            )


def _file(named: tuple[str, bytes]) -> discord.File:
    name, content = named
    return discord.File(io.BytesIO(content), filename=name)


def _shown(text: str) -> str:
    """Discord takes no message without a text."""
    return text if text.strip() else NOTHING


def _for_all(inbound: Inbound, text: str) -> str:
    """What may be said where others read it."""
    command = COMMANDS.get(inbound.call.command) if inbound.call is not None else None
    is_personal = command is not None and command.is_personal
    return NO_DIRECT_MESSAGES if is_personal or len(text) > TOLD_IN_PLACE_LETTERS else text
