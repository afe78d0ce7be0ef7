"""What people see below the bot's name: how the swarm is, changed when it changes, once a minute at most."""

import logging
from collections.abc import Awaitable, Callable

import discord

from bot.clock import Clock
from bot.on_discord.errors import translated
from bot.rendering.presence import presence_of
from bot.survey import Survey
from bot.words import SendError
from swarm.errors import MurmurError

logger = logging.getLogger(__name__)

EVERY_S = 60.0
AGAIN_S = 5.0
"""Until there is a connection to say it through."""

Look = Callable[[], Awaitable[Survey]]


async def show_presence_forever(client: Callable[[], discord.Client], survey: Look, clock: Clock) -> None:
    """Look each minute, and show what has changed."""
    shown: tuple[discord.Client, str] | None = None
    while True:
        now = client()
        text = await _looked(survey) if now.is_ready() else None
        if text is not None and shown != (now, text) and await _show(now, text):
            shown = now, text
        await clock.sleep(EVERY_S if shown is not None else AGAIN_S)


async def _looked(survey: Look) -> str | None:
    try:
        return presence_of(await survey(), "/")
    except MurmurError as error:
        logger.info("the swarm does not say how it is: %s", error)
        return None


async def _show(client: discord.Client, text: str) -> bool:
    activity = discord.CustomActivity(name=text)
    client.activity = activity  # for sessions that begin later
    try:
        async with translated():
            await client.change_presence(activity=activity)
    except SendError as error:
        logger.info("how the swarm is cannot be shown: %s", error)
        return False
    return True
