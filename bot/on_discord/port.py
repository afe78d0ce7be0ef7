"""The way out to Discord: posts, edits, reactions, private sentences. See bot.sending.outbound.

Nothing that we send pings anybody, and no link in it grows a preview.
"""

import logging
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import discord

from bot.clock import Clock
from bot.on_discord.attachments import read_attachment, with_file
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
from bot.on_discord.pacers import Pacers
from bot.on_discord.places import moment_ms
from bot.on_discord.receipts import NO_MENTIONS, Receipts
from bot.on_discord.telling import LETTERS, for_all, shown, told
from bot.on_discord.threads import Threads
from bot.rendering.splitting import utf16_units
from bot.sending.pacer import Pacer
from bot.sending.pacing import Priority
from bot.words import Attached, File, Inbound, Limited, Limits, Post, Unreachable, Where

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 10 * 1024 * 1024 - 4096
"""What every place takes, with some room for the form around it; servers that were boosted take more."""
MOST_TRIED = 1000
NONCE_S = 100.0
"""Discord forgets a nonce after some minutes; after so long we look ourselves whether a message is there."""
CLOCK = "🕒"
SEEN = "👀"


class DiscordPort:
    """One bot account on Discord."""

    def __init__(
        self,
        client: Callable[[], discord.Client],
        receipts: Receipts,
        elsewhere: Elsewhere,
        history: History,
        pacers: Pacers,
        clock: Clock,
    ) -> None:
        self.limits = Limits(LETTERS, file_bytes=MAX_FILE_BYTES)
        self.shows_seen = False
        """Whether a message that was accepted gets a reaction."""
        self.pings_on_reply = False
        self.threads: Threads
        self._client = client
        self._receipts = receipts
        self._elsewhere = elsewhere
        self._history = history
        self._clock = clock
        self._began_ms = clock.now_ms()
        self._pacers = pacers
        self._tried_s: OrderedDict[str, float] = OrderedDict()

    def size(self, text: str) -> int:
        """In UTF-16 units, as Discord counts."""
        return utf16_units(text)

    def moment(self, at_ms: int, now_ms: int) -> str:
        """Discord shows it in each reader's own time and language."""
        return f"<t:{at_ms // 1000}:t>, <t:{at_ms // 1000}:R>"

    def pacer(self, where: Where) -> Pacer:
        """One for each channel."""
        return self._pacers.of(where.place)

    async def open_thread(self, inbound: Inbound) -> Inbound:
        """See bot.sending.outbound.OpensThreads."""
        return await self.threads.open(inbound)

    async def post(self, where: Where, reply_to: str, post: Post) -> str:
        """Reply, once for each key: Discord knows those of the last minutes, and later we look."""
        if self._elsewhere.has(where.place, reply_to):
            return await self._elsewhere.answer(where.place, reply_to, post)
        tried_s = self._tried_s.get(post.key)
        message_id = None
        if tried_s is None or self._clock.now_s() - tried_s > NONCE_S:
            if tried_s is not None:
                message_id = (await self.find(where, reply_to, [post.key])).get(post.key)
            self._note_try(post.key, self._clock.now_s())
        is_new = message_id is None and tried_s is None
        if message_id is None:
            message = await self._reply(where, reply_to, post)
            message_id = str(message.id)
            is_new = is_new and message.content == shown(post.text).strip()
        if not is_new:  # it was there already, and may say what we wanted to say then
            await self.edit(where, message_id, post)
        self._tried_s.pop(post.key, None)
        return message_id

    async def edit(self, where: Where, message_id: str, post: Post) -> None:
        """Show another text, other buttons, and a file if there is one."""
        changed: dict[str, Any] = {"attachments": list(with_file(post.file).values())} if post.file else {}
        if self._elsewhere.has_answer(message_id):
            await self._elsewhere.edit(message_id, post, **changed)
            return
        async with translated():
            await self._message(where, message_id).edit(
                content=shown(post.text), view=view_of(post), allowed_mentions=NO_MENTIONS, **changed
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
        """Look in the channel for our replies to `reply_to`; if that fails, again before they are sent."""
        try:
            return await self._history.find(where, reply_to, keys)
        except (Unreachable, Limited):
            for key in keys:
                self._note_try(key, -math.inf)
            raise

    async def typing(self, where: Where) -> None:
        """Discord shows it for ten seconds, or until we write."""
        async with translated():
            await self._channel(where).typing()

    async def acknowledge(self, where: Where, event_id: str, mark: Literal["seen", "queued", ""]) -> None:
        """A clock below a message that waits; one that was seen is marked only if that was asked for.

        One that was written before we began may have had to wait then: its clock goes as well.
        """
        message = self._asked_with(where, event_id)
        if message is None:
            return
        me = self._client().user
        async with translated():
            if mark == "queued":
                await message.add_reaction(CLOCK)
                return
            if mark == "seen" and self.shows_seen:
                await message.add_reaction(SEEN)
            if me is not None and (mark == "" or moment_ms(int(event_id)) < self._began_ms):
                await message.remove_reaction(CLOCK, me)

    async def tell(self, inbound: Inbound, text: str, file: File | None = None) -> None:
        """Below the command or button if there is one, else in a direct message, else in few words there.

        A file comes with the first part, and never where others see it.
        """
        parts, file = told(text, file)
        for number, part in enumerate(parts):
            with_first = file if number == 0 else None
            if await self._receipts.answer(inbound.event_id, part, with_first):
                continue
            if inbound.where.kind == "direct":
                await self._say(inbound, part, number, with_first)
                continue
            try:
                await self._write_privately(inbound, part, number, with_first)
            except RefusedWith as error:
                if error.code != CANNOT_WRITE_TO_PERSON:
                    raise
                await self._say(inbound, for_all(inbound, text), number)
                return

    async def read(self, attached: Attached, most_bytes: int) -> bytes:
        """From Discord's own storage."""
        return await read_attachment(attached.address, most_bytes)

    # --- what it is made of ----------------------------------------------------------------------------

    def _channel(self, where: Where) -> discord.PartialMessageable:
        return self._client().get_partial_messageable(int(where.place))

    def _message(self, where: Where, message_id: str) -> discord.PartialMessage:
        return self._channel(where).get_partial_message(int(message_id))

    def _asked_with(self, where: Where, event_id: str) -> discord.PartialMessage | None:
        """What asked for something; that of which a thread was made stands in its channel."""
        if event_id != where.place:
            return self._message(where, event_id)
        thread = self._client().get_channel(int(where.place))
        if not isinstance(thread, discord.Thread):
            return None
        return self._client().get_partial_messageable(thread.parent_id).get_partial_message(int(event_id))

    def _note_try(self, key: str, at_s: float) -> None:
        self._tried_s[key] = at_s
        if len(self._tried_s) > MOST_TRIED:
            self._tried_s.popitem(last=False)

    async def _reply(self, where: Where, reply_to: str, post: Post) -> discord.Message:
        given: dict[str, Any] = {"nonce": post.key, "suppress_embeds": True}
        view = view_of(post)
        if view is not None:
            given["view"] = view
        if reply_to == where.place:  # the thread was made of it: all that is there stands below it
            return await self._send(where, post, given)
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
        given = given | with_file(post.file)
        async with translated():
            sent: discord.Message = await self._channel(where).send(
                shown(post.text), allowed_mentions=self._mentions(), **given
            )
        return sent

    def _mentions(self) -> discord.AllowedMentions:
        return discord.AllowedMentions(
            everyone=False, users=False, roles=False, replied_user=self.pings_on_reply
        )

    async def _say(self, inbound: Inbound, text: str, number: int, file: File | None = None) -> None:
        """A sentence at the place itself, in its turn."""
        post = Post(text, f"t{number}{inbound.event_id}"[:25], file=file)
        where = inbound.where
        await self.pacer(where).send(Priority.NOTICE, None, lambda: self.post(where, inbound.event_id, post))

    async def write_to(self, person_id: str, text: str) -> None:
        """See bot.sending.outbound.Writes."""
        await self._write(person_id, text, f"w{secrets.token_hex(12)}", None)

    async def _write_privately(self, inbound: Inbound, text: str, number: int, file: File | None) -> None:
        await self._write(inbound.author.external_id, text, f"d{number}{inbound.event_id}", file)

    async def _write(self, person_id: str, text: str, nonce: str, file: File | None) -> None:
        async with translated():
            direct = await self._client().create_dm(discord.Object(int(person_id)))
            await direct.send(
                text,
                nonce=nonce[:25],
                allowed_mentions=NO_MENTIONS,
                suppress_embeds=True,
                **with_file(file),
            )
