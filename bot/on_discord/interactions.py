"""Commands that people give and buttons that they press: acknowledged at once, then given to the core."""

import logging
from collections.abc import Awaitable, Callable

import discord

from bot.commands.registry import Command
from bot.config.platforms import DiscordSettings
from bot.on_discord.elsewhere import Elsewhere, is_elsewhere
from bot.on_discord.errors import translated
from bot.on_discord.events import author_of, may_use, where_of
from bot.on_discord.receipts import ACKNOWLEDGE_S, NO_MENTIONS, Asked, Receipts
from bot.on_discord.rights import Rights
from bot.receiving.access import Access
from bot.turns.names import safe_name
from bot.words import Call, Inbound, SendError

logger = logging.getLogger(__name__)

QUOTED_LETTERS = 1500
ASK = "ask"
AGAIN = ("retry", "continue")
"""They have an answer written, as a question has."""
SILENT = ("stop", *AGAIN)
PUBLIC = ("new",)
NOT_HERE = "I may not be used here, or not by you."

Keep = Callable[[Inbound], Awaitable[None]]


class Interactions:
    """Takes them in; `keep` gives them to the core, which keeps them."""

    def __init__(
        self,
        settings: DiscordSettings,
        access: Access,
        receipts: Receipts,
        elsewhere: Elsewhere,
        rights: Rights,
        keep: Keep,
    ) -> None:
        self._settings = settings
        self._access = access
        self._receipts = receipts
        self._elsewhere = elsewhere
        self._rights = rights
        self._keep = keep

    async def obey(self, asked: Asked, command: Command, arguments: dict[str, str]) -> None:
        """A slash command was given."""
        name = command.name
        if await self._is_refused(asked, name):
            return
        if name == ASK:
            await self._ask(asked, arguments["text"].strip(), arguments["text"])
        elif await self._is_acknowledged(asked, name):
            await self._keep(_said(asked, str(asked.id), call=Call(name, arguments)))

    async def press(self, asked: Asked, command: str, turn_id: str) -> None:
        """A button below an answer was pressed."""
        if await self._is_refused(asked, command):
            return
        event_id = str(asked.id)
        if await self._receipts.take_press(event_id, asked):
            await self._keep(_said(asked, event_id, call=Call(command, {"turn": turn_id})))

    async def ask_about(self, asked: Asked, message: discord.Message) -> None:
        """Somebody wants to know about what somebody wrote."""
        if await self._is_refused(asked, ASK):
            return
        text = f"About what {safe_name(message.author.display_name)} wrote:\n{message.content}"
        await self._ask(asked, text, f"about {message.jump_url}")

    async def _is_acknowledged(self, asked: Asked, name: str) -> bool:
        event_id = str(asked.id)
        if name in AGAIN and is_elsewhere(asked):
            self._elsewhere.go_on(asked)
            return await self._receipts.wait_for_answer(event_id, asked)
        is_private, is_silent = name not in PUBLIC, name in SILENT
        return await self._receipts.wait_privately(
            event_id, asked, is_private=is_private, is_silent=is_silent
        )

    async def _ask(self, asked: Asked, text: str, shown: str) -> None:
        """Show the question; what we show is what the answer replies to, and lives longer than the token."""
        try:
            async with translated(ACKNOWLEDGE_S):
                question = await asked.response.send_message(
                    _quoted(shown), allowed_mentions=NO_MENTIONS, suppress_embeds=True
                )
        except (SendError, discord.InteractionResponded) as error:
            logger.warning("a question was not acknowledged: %s", error)
            return
        event_id = str(question.message_id)
        if is_elsewhere(asked):
            self._elsewhere.keep(event_id, asked)
        await self._keep(_said(asked, event_id, text=text))

    async def _is_refused(self, asked: Asked, command: str) -> bool:
        sentence = self._refusal(asked, command)
        if not sentence:
            return False
        try:
            async with translated(ACKNOWLEDGE_S):
                await asked.response.send_message(sentence, ephemeral=True)
        except (SendError, discord.InteractionResponded) as error:
            logger.info("a refusal was not said: %s", error)
        return True

    def _refusal(self, asked: Asked, command: str) -> str:
        """Why nothing is done, as a sentence; "" if something is."""
        channel_id = asked.channel_id or 0
        if not may_use(self._settings, self._access, asked.user, asked.channel, channel_id, command):
            return NOT_HERE
        has_answer = command == ASK or command in AGAIN
        return self._rights.missing_for(asked, is_new=command == ASK) if has_answer else ""


def _said(asked: Asked, event_id: str, *, text: str = "", call: Call | None = None) -> Inbound:
    """An interaction as the core hears it."""
    return Inbound(
        event_id,
        where_of(asked.channel, asked.channel_id or 0),
        author_of(asked.user, asked.permissions if asked.guild_id is not None else None),
        text,
        round(asked.created_at.timestamp() * 1000),
        call=call,
    )


def _quoted(text: str) -> str:
    """A question as others see it, short enough to be a message."""
    lines = text[:QUOTED_LETTERS].splitlines() or [""]
    quoted = "\n".join(f"> {line}" for line in lines)
    return quoted[: QUOTED_LETTERS + 200] + ("…" if len(text) > QUOTED_LETTERS else "")
