"""Errors of discord.py and of the network below it, as the core knows them. Every call has a deadline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import discord

from bot.words import Limited, Refused, SendError, Unreachable

CALL_S = 25.0
"""The library waits for some seconds itself when a bucket is empty, and comes again after a 429 or a 502."""
LIMITED_S = 5.0
"""If Discord names no time."""
UNKNOWN_CHANNEL = 10003
UNKNOWN_MESSAGE = 10008
CANNOT_WRITE_TO_PERSON = 50007
CANNOT_READ_HISTORY = 160002
HAS_THREAD = 160004


class RefusedWith(Refused):
    """Refused, with the number that Discord has for the reason."""

    def __init__(self, status: int, code: int) -> None:
        super().__init__(f"Discord refused with {status} (code {code})")
        self.code = code


@asynccontextmanager
async def translated(within_s: float = CALL_S) -> AsyncIterator[None]:
    """Around calls of Discord: raises Refused, Limited or Unreachable for what they raise."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except discord.DiscordException as error:
        raise _translated(error) from error
    except TimeoutError as error:
        raise Unreachable(f"Discord did not answer within {within_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"Discord cannot be reached: {type(error).__name__}") from error


def _translated(error: discord.DiscordException) -> SendError:
    if isinstance(error, discord.RateLimited):
        return Limited(error.retry_after)
    if not isinstance(error, discord.HTTPException):
        return Refused(f"the library refused: {type(error).__name__}")
    if error.status == 429:
        return Limited(LIMITED_S)
    if error.status >= 500:
        return Unreachable(f"Discord has trouble of its own ({error.status})")
    return RefusedWith(error.status, error.code)
