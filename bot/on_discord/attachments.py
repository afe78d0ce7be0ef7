"""Files on Discord: those that we send, and those that come with messages."""

import io
from typing import Any

import aiohttp
import discord

from bot.on_discord.errors import translated
from bot.words import Attached, File, Limited, Refused, TooLarge, Unreachable

READ_S = 15.0
CHUNK_BYTES = 1 << 16
MAX_KIND_LETTERS = 100
LIMITED_S = 5.0


def with_file(file: File | None) -> dict[str, Any]:
    """The argument by which discord.py sends a file; each can be sent once."""
    if file is None:
        return {}
    name, content = file
    return {"file": discord.File(io.BytesIO(content), filename=name)}


def attached_to(message: discord.Message) -> tuple[Attached, ...]:
    """The files of a message."""
    return tuple(
        Attached(it.filename, (it.content_type or "")[:MAX_KIND_LETTERS], it.size, it.url)
        for it in message.attachments
    )


async def read_attachment(url: str, most_bytes: int) -> bytes:
    """A file from where Discord keeps it, `url` being what Discord itself has said of a message.

    The library reads files whole, however large; here is an end.
    Raises TooLarge, Refused, Limited, Unreachable.
    """
    async with (
        translated(READ_S),
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, allow_redirects=False) as answer,
    ):
        if answer.status == 429:
            raise Limited(LIMITED_S)
        if answer.status >= 500:
            raise Unreachable(f"Discord does not give a file out now ({answer.status})")
        if answer.status != 200:
            raise Refused(f"Discord does not give a file out ({answer.status})")
        return await _bounded(answer.content, most_bytes)


async def _bounded(stream: aiohttp.StreamReader, most_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in stream.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > most_bytes:
            raise TooLarge(f"a file has more than {most_bytes} bytes")
    return bytes(content)
