"""The link with which somebody adds the bot to their Discord server, with the rights that it needs there."""

import logging

import discord

from bot.on_discord.errors import translated
from bot.words import SendError
from swarm.errors import ConfigError

LOGIN_S = 30.0
RIGHTS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    create_public_threads=True,
    read_message_history=True,
    add_reactions=True,
    attach_files=True,
)
SCOPES = ("bot", "applications.commands")


async def invite_url(token: str) -> str:
    """The link for the bot of this token. Raises ConfigError."""
    logging.getLogger("discord").setLevel(logging.WARNING)
    async with discord.Client(intents=discord.Intents.none()) as client:
        try:
            async with translated(LOGIN_S):
                await _log_in(client, token)
        except SendError as error:
            raise ConfigError(f"Discord cannot be reached: {error}") from error
        if client.application_id is None:
            raise ConfigError("Discord does not say which application the token belongs to")
        return discord.utils.oauth_url(client.application_id, permissions=RIGHTS, scopes=SCOPES)


async def _log_in(client: discord.Client, token: str) -> None:
    try:
        await client.login(token)
    except discord.LoginFailure as error:
        raise ConfigError("Discord does not know the token in [discord]; copy it anew") from error
