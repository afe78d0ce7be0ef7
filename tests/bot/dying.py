"""Bots that kill themselves with SIGKILL at a named point: processes of their own, and who starts them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from demo.zygote import die_with
from storage.database import Database
from storage.inbox import receive

READY = "ready"
TOKEN = "BOT_TOKEN"
Moments = Callable[[Any, Sequence[Any]], tuple[str, str]]
"""The points before and after a write to the store, told by the work and its arguments."""


@asynccontextmanager
async def open_dying(module: str, *arguments: str, token: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The bot that `module` runs, hearing; it is gone when the block ends. The token goes by environment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {TOKEN: token},
        preexec_fn=partial(die_with, os.getpid()),
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == f"{READY}\n".encode()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def assert_killed(process: asyncio.subprocess.Process, within_s: float = 30) -> None:
    """Wait until the bot has come to its point."""
    async with asyncio.timeout(within_s):
        assert await process.wait() == -signal.SIGKILL


# --- in the process itself ---------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def live_until_killed() -> None:
    """Say that the bot hears, and run for as long as any test needs."""
    print(READY, flush=True)  # noqa: T201 - the test waits for it
    await asyncio.sleep(60)


def heard_and_kept(work: Any, arguments: Sequence[Any]) -> tuple[str, str]:
    """What somebody said is in the inbox after the write, and not before."""
    return ("heard", "kept") if work is receive and arguments[1] else ("", "")


def watch_writes(store: Database, point: str, moments: Moments) -> None:
    """Die before or after the first write that has the point."""
    write = store.write

    async def watched(work: Any, *arguments: Any, **named: Any) -> Any:
        before, after = moments(work, arguments)
        if point == before:
            die()
        result = await write(work, *arguments, **named)
        if point == after:
            die()
        return result

    store.write = watched  # type: ignore[method-assign]
