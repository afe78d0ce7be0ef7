"""Calling a running bot through its control socket."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bot.commands.naming import Mistaken
from bot.commands.office import Done
from bot.operator.wire import MAX_ANSWER_BYTES, Answer, Request

ANSWERS_WITHIN_S = 75.0
"""More than a bot allows itself."""


class NobodyListens(Exception):
    """No bot has this control socket open."""


async def call(path: Path, command: str, arguments: Mapping[str, str]) -> Done:
    """Have the bot carry a command out. Raises Mistaken if it does not, NobodyListens if there is no bot."""
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            reader, writer = await _connected(path)
            try:
                answer = await _asked(reader, writer, Request(command, dict(arguments)))
            finally:
                writer.close()
    except TimeoutError as error:
        raise Mistaken(f"the bot that listens on {path} does not answer; its log may tell why") from error
    except (msgspec.MsgspecError, ValueError, EOFError, asyncio.LimitOverrunError, ConnectionError) as error:
        raise Mistaken(
            f"what listens on {path} has not answered as a bot does; is it one, and ending?"
        ) from error
    if answer.mistake:
        raise Mistaken(answer.mistake)
    return Done(answer.text, answer.rows)


async def _connected(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(str(path), limit=MAX_ANSWER_BYTES)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NobodyListens from error
    except OSError as error:
        raise Mistaken(f"{path} cannot be used: {error.strerror}") from error


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> Answer:
    writer.write(msgspec.json.encode(request) + b"\n")
    await writer.drain()
    return msgspec.json.decode(await reader.readuntil(), type=Answer)
