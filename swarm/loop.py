"""How every command runs its asyncio loop: uvloop, short thread switches, signals that cancel."""

import asyncio
import contextlib
import errno
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, TextIO, TypeVar

import uvloop

from swarm.errors import MurmurError
from swarm.say import clear, say

T = TypeVar("T")
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# With the compute thread busy the loop's p99 falls from 4.3 to 2.2 ms (default interval: 0.005 s).
SWITCH_INTERVAL_S = 0.0005


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end. SIGINT and SIGTERM cancel it, once: its clean-up is not cut short by a second.

    Raises asyncio.CancelledError if a signal ended it.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_signal(main))


def run_command(name: str, main: Awaitable[None], *, code_if_stopped: int) -> int:
    """Run a command; returns its exit code. A mistake is one sentence on standard error and 2.

    If nobody reads its output any more, as after `| head -1`, it ends without a word and with 0. If a signal
    ends it, the process ends as soon as its clean-up is through: a thread that loads or downloads cannot be
    stopped, and nobody should wait for it.
    """
    try:
        run(_left_if_stopped(main, code_if_stopped))
        sys.stdout.flush()
    except MurmurError as error:
        say(f"murmur {name}: {error}")
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _silence_unread():
            return 0
        if error.errno not in NO_ROOM:
            raise
        what = f" for {error.filename}" if error.filename else ""
        say(f"murmur {name}: there is no room on the disk{what}: free some and start again")
        return 2
    return 0


def spare_what_is_loaded() -> None:
    """Have no later garbage collection look at what is loaded by now.

    With torch and its like in memory each full one takes 0.12 s or more, in which the loop stands still.
    """
    gc.collect()
    gc.freeze()


def forgive_input() -> None:
    """From now on, bytes of standard input that are no text become question marks in diamonds."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")


def _silence_unread() -> bool:
    """Lead the standard streams that have lost their reader to nowhere; False if none has.

    Other pipes break too, p2pd's for example, and that is no quiet end.
    """
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
    for stream in unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)


def _is_unread(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream, 0)  # errors and hang-ups are told unasked
    return bool(poll.poll(0))


async def _left_if_stopped(main: Awaitable[None], code: int) -> None:
    try:
        await main
    except asyncio.CancelledError:
        clear()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


async def _until_signal(main: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return await main
