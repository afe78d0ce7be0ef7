"""The control socket: whoever may use the bot's files gives a running bot admins' commands through it.

One line of JSON asks, one answers; both are bounded, and nobody is waited for without a deadline. The socket
is its owner's alone, and only one that nobody listens on any more is replaced.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import msgspec

from bot.commands.desk import CommandDesk
from bot.commands.naming import Mistaken
from bot.commands.office import office_of
from bot.operator.actions import ALL_ACTIONS
from bot.operator.wire import MAX_REQUEST_BYTES, Answer, Request
from storage.errors import StorageError
from swarm.background import RunningGroup, running_group
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

ASKS_WITHIN_S = 5.0
DONE_WITHIN_S = 60.0
TELLS_WITHIN_S = 5.0
MOST_CALLERS = 8
BACKLOG = 16
OPERATOR = "operator"
UNREADABLE = "that is no command: write one line of JSON with command and arguments"


@asynccontextmanager
async def open_control(path: Path, bot: CommandDesk) -> AsyncIterator[None]:
    """Listen at `path` for the length of the block. Raises ConfigError if that cannot be."""
    listener = _listen(path)
    inode = path.stat().st_ino
    async with running_group() as group:
        control = Control(bot, group)
        server = await asyncio.start_unix_server(control.take, sock=listener, limit=MAX_REQUEST_BYTES)
        try:
            yield
        finally:
            server.close()
            with suppress(OSError):
                if path.stat().st_ino == inode:  # and not another bot's by now
                    path.unlink()


class Control:
    """Takes callers in, a few at the same time."""

    def __init__(self, bot: CommandDesk, group: RunningGroup) -> None:
        self._bot = bot
        self._group = group
        self._num_callers = 0

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody has called."""
        self._group.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._num_callers += 1
        try:
            is_full = self._num_callers > MOST_CALLERS
            answer = Answer(mistake="too many callers") if is_full else await self._answer(reader)
            async with asyncio.timeout(TELLS_WITHIN_S):
                writer.write(msgspec.json.encode(answer) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError) as error:
            logger.info("a caller of the control socket was not answered: %s", error)
        finally:
            self._num_callers -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            async with asyncio.timeout(ASKS_WITHIN_S):
                request = msgspec.json.decode(await reader.readuntil(), type=Request)
        except (msgspec.MsgspecError, ValueError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            return Answer(mistake=UNREADABLE)
        try:
            async with asyncio.timeout(DONE_WITHIN_S):
                return await self.carry_out(request)
        except (Mistaken, StorageError) as error:
            return Answer(mistake=str(error))
        except TimeoutError:
            return Answer(mistake="that took too long; the bot's log may tell why")
        except Exception:  # whoever calls has an answer coming, whatever went wrong
            logger.exception("a command through the control socket failed")
            return Answer(mistake="that went wrong; the bot's log tells how")

    async def carry_out(self, request: Request) -> Answer:
        """Do what is asked. Raises Mistaken, StorageError."""
        action = ALL_ACTIONS.get(request.command)
        if action is None:
            raise Mistaken("the running bot knows no such command: it may be of another version")
        done = await action(office_of(self._bot, OPERATOR), request.arguments)
        return Answer(done.text, None if done.rows is None else [dict(row) for row in done.rows])


def _listen(path: Path) -> socket.socket:
    """A socket at `path` that only its owner can reach. Raises ConfigError."""
    try:
        _clear(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # it is never open to others, not even for a moment
        try:
            listener.bind(str(path))
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"[ops] control_socket: {path} cannot be made: {error.strerror or error}"
        ) from error
    return listener


def _clear(path: Path) -> None:
    """Take a socket away that nobody listens on. Raises ConfigError if somebody does, or it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"[ops] control_socket: {path} is no socket; move it away, or name another path")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # somebody is there, and busy
    raise ConfigError(f"[ops] control_socket: another bot listens on {path}; stop it, or name another path")
