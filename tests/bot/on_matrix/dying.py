"""A bot that kills itself with SIGKILL at a named point, for tests: run as a process."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from nio import AsyncClient, AsyncClientConfig

from tests.bot.dying import TOKEN, die, heard_and_kept, live_until_killed, watch_writes
from tests.bot.on_matrix.world import Bot, open_bot

POINTS = ("heard", "kept", "asked", "posted", "shown")
END = "the very end"
ANSWER = "word " * 20 + END


def arm(bot: Bot, point: str) -> None:
    """Die when a message is heard, when it is kept, when the model is asked, after the first or last post."""
    send = bot.client.send

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
    watch_writes(bot.store, point, heard_and_kept)
    bot.client.send = watched_send


async def main(url: str, user_id: str, device_id: str, store: str, point: str) -> None:
    """The token comes through the environment."""
    config = AsyncClientConfig(encryption_enabled=False, store_sync_tokens=False, max_limit_exceeded=0)
    client = AsyncClient(url, user_id, device_id, config=config)
    client.restore_login(user_id, device_id, os.environ[TOKEN])
    async with open_bot(client, Path(store), boot="dying") as bot:
        arm(bot, point)
        await live_until_killed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
