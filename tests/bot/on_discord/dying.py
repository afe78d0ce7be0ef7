"""A bot that kills itself with SIGKILL at a named point, for tests: run as a process.

It talks to a fake Discord that runs in the test's process, of which it knows only the addresses.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from bot.words import Post, Where
from tests.bot.dying import TOKEN, die, heard_and_kept, live_until_killed, watch_writes
from tests.bot.on_discord.stage import Stage, open_stage
from tests.discord_peer import FakeDiscord, redirected_to

POINTS = ("heard", "kept", "held", "posted", "written", "settled", "shown")
"""Nothing of an answer is kept when the bot dies at one of these, or all of it."""
HALF = "half"
QUESTION = "word " * 20 + "the very end"
ANSWER = f"You said: {QUESTION}"
TOKEN_S, SLOW_TOKEN_S = 0.01, 0.08


class DiscordElsewhere:
    """What a stage needs of a fake Discord that runs in another process."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def until(self, is_so: Callable[[], Any], within_s: float = 10.0) -> None:
        deadline_s = time.monotonic() + within_s
        while not is_so():
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)


def moments(work: Any, arguments: Sequence[Any]) -> tuple[str, str]:
    """The points before and after a write to the store."""
    name = getattr(work, "__qualname__", "")
    if name.startswith("Books.end."):
        return "written", "settled"
    return ("", HALF) if name.startswith("Books.keep.") else heard_and_kept(work, arguments)


def arm(stage: Stage, point: str) -> None:
    """Have it die at `point`.

    heard, kept: before and after a message is in the inbox. held: its quota is held, and the model is asked.
    posted: the first message is sent, and its id is not known. half: a part of the answer is kept. written,
    settled: before and after it is paid for. shown: its final text is sent.
    """
    port = stage.discord.port
    send, edit = port.post, port.edit

    async def watched_post(where: Where, reply_to: str, post: Post) -> str:
        message_id = await send(where, reply_to, post)
        if point == "posted":
            die()
        return message_id

    async def watched_edit(where: Where, message_id: str, post: Post) -> None:
        await edit(where, message_id, post)
        if point == "shown" and post.text == ANSWER:
            die()

    def answered(prompt: str) -> str:
        if point == "held":
            die()
        return ANSWER

    stage.brain.answer = answered
    watch_writes(stage.store, point, moments)
    port.post, port.edit = watched_post, watched_edit  # type: ignore[method-assign]


async def main(api_url: str, gateway_url: str, store: str, point: str) -> None:
    """The token comes through the environment."""
    discord = cast(FakeDiscord, DiscordElsewhere(os.environ[TOKEN]))
    token_s = SLOW_TOKEN_S if point == HALF else TOKEN_S
    with redirected_to(api_url, gateway_url):
        async with open_stage(discord, Path(store), boot="dying", token_s=token_s) as stage:
            arm(stage, point)
            await live_until_killed()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
