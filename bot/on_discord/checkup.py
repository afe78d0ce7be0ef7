"""Discord as `./murmur doctor` tries it: by a few requests, and without a gateway."""

import discord
from discord.http import Route

from bot.config.platforms import DiscordSettings
from bot.findings import Finding, failed, ok, warning
from bot.on_discord.errors import translated
from bot.on_discord.opening import READS_LESS, WRONG_TOKEN
from bot.on_discord.requests import MOST_LIMITED_S
from bot.words import SendError
from swarm.background import finish

WITHIN_S = 20.0
CLOSE_S = 5.0


def address() -> str:
    """Something that Discord answers, whoever asks."""
    return f"{Route.BASE}/gateway"


async def check_discord(settings: DiscordSettings) -> list[Finding]:
    """Whether the token is good, and the intents that the settings want are granted."""
    client = discord.Client(intents=discord.Intents.none(), max_ratelimit_timeout=MOST_LIMITED_S)
    try:
        async with translated(WITHIN_S):
            return await _asked(client, settings)
    except SendError as error:
        return [failed("discord", f"{error}: see whether this machine reaches discord.com")]
    finally:
        await finish(client.close(), CLOSE_S)


async def _asked(client: discord.Client, settings: DiscordSettings) -> list[Finding]:
    try:
        await client.login(settings.token.get_secret_value())
    except discord.LoginFailure:
        return [failed("discord token", WRONG_TOKEN)]
    user = client.user
    findings = [ok("discord token", f"Discord knows the bot, id {user.id if user is not None else '?'}")]
    return [*findings, _intent(client.application_flags, settings)]


def _intent(flags: discord.ApplicationFlags, settings: DiscordSettings) -> Finding:
    if not settings.message_content:
        return ok("discord intents", "the message content intent is not asked for")
    if flags.gateway_message_content or flags.gateway_message_content_limited:
        return ok("discord intents", "the message content intent is granted")
    return warning("discord intents", READS_LESS)
