"""A bot that kills itself with SIGKILL at a named point, for tests: run as a process."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from nio import AsyncClient, AsyncClientConfig

from storage.inbox import receive
from tests.bot.on_matrix.world import Bot, open_bot

POINTS = ("heard", "kept", "asked", "posted", "shown")
END = "the very end"
ANSWER = "word " * 20 + END


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(bot: Bot, point: str) -> None:
    """Die when a message is heard, when it is kept, when the model is asked, after the first or last post."""
    write, send = bot.store.write, bot.client.send

    async def watched_write(work: Any, *arguments: Any, **named: Any) -> Any:
        is_kept = work is receive and bool(arguments[1])
        if is_kept and point == "heard":
            die()
        result = await write(work, *arguments, **named)
        if is_kept and point == "kept":
            die()
        return result

    async def watched_send(method: str, path: str, body: bytes | None = None, *rest: Any) -> Any:
        answer = await send(method, path, body, *rest)
        is_message = method == "PUT" and "/send/m.room.message/" in path
        if is_message and (point == "posted" or (point == "shown" and END.encode() in (body or b""))):
            die()
        return answer

    def answered(prompt: str) -> str:
        if point == "asked":
            die()
        return ANSWER

    bot.brain.answer, bot.brain.token_s = answered, 0.02
    bot.store.write = watched_write  # type: ignore[method-assign]
    bot.client.send = watched_send


async def main(url: str, user_id: str, device_id: str, store: str, point: str) -> None:
    """The token comes through the environment."""
    config = AsyncClientConfig(encryption_enabled=False, store_sync_tokens=False, max_limit_exceeded=0)
    client = AsyncClient(url, user_id, device_id, config=config)
    client.restore_login(user_id, device_id, os.environ["BOT_TOKEN"])
    async with open_bot(client, Path(store), boot="dying") as bot:
        arm(bot, point)
        print("ready", flush=True)  # noqa: T201 - the test waits for it
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
