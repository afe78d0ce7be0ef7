"""The store's file: opened under a lock, migrated, read beside writers, written in groups.

A write is a function of a connection, and one transaction. Those that wait together are committed together,
each in a savepoint of its own, so that one that fails takes nothing with it and many cost one commit. They
run on one thread: a hop to a driver's thread for each statement costs five times as much as the statements.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage.engines import NUM_READERS, reading_engine, writing_engine
from storage.errors import StoreBusy, StoreUnusable
from storage.lock import instance_lock
from storage.migrating import migrate

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[[Connection], T]

MAX_WAITING = 1024
MAX_GROUP = 32

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "it may not be written: check who owns it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check the folder and who owns it",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: move it away, or restore a backup",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore a backup",
    sqlite3.SQLITE_IOERR: "the disk does not read or write: look at the system's log",
}
_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


@dataclass(eq=False)
class _Job:
    work: Work[Any]
    done: asyncio.Future[Any]
    has_begun: bool = False


class Database:
    """An open store. See `open_database`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = writing_engine(path)
        self._readers = reading_engine(path)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="murmur-store-writer")
        self._read_threads = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="murmur-store-reader")
        self._waiting: asyncio.Queue[_Job] = asyncio.Queue(MAX_WAITING)
        self._is_closed = False

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)` in a transaction; return what it returns once that is committed.

        If the caller is cancelled, a transaction that has begun is not: the cancellation comes through when
        it has ended. Raises what `work` raises, with nothing written; StoreBusy; StoreUnusable.
        """
        if self._is_closed:
            raise StoreUnusable(f"{self.path} is closed")
        job = _Job(
            lambda connection: work(connection, *args, **kwargs), asyncio.get_running_loop().create_future()
        )
        try:
            self._waiting.put_nowait(job)
        except asyncio.QueueFull as error:
            raise StoreBusy("too many writes wait already; try again in a moment") from error
        try:
            result: T = await asyncio.shield(job.done)
        except asyncio.CancelledError:
            if not job.has_begun:
                job.done.cancel()
            await asyncio.wait([job.done])
            raise
        return result

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)` on one consistent view of the store.

        Raises StoreUnusable, or what `work` raises.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._read_threads, self._read, lambda connection: work(connection, *args, **kwargs)
        )

    async def write_until_closed(self) -> None:
        """Commit what waits, group by group, until `close`."""
        loop = asyncio.get_running_loop()
        while not self._is_closed or not self._waiting.empty():
            group = [await self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            group = [job for job in group if not job.done.done()]
            for job in group:
                job.has_begun = True
            _settle(group, await loop.run_in_executor(self._write_thread, self._commit, group))

    async def close(self) -> None:
        """Take no more writes; those that wait are committed."""
        self._is_closed = True
        await self._waiting.put(_Job(_nothing, asyncio.get_running_loop().create_future()))

    def dispose(self) -> None:
        """Let go of the file, once nothing is written any more."""
        for threads in (self._write_thread, self._read_threads):
            threads.shutdown()
        self._writer.dispose()
        self._readers.dispose()

    def _read(self, work: Work[T]) -> T:
        with _told(self.path), self._readers.begin() as connection:
            return work(connection)

    def _commit(self, group: Sequence[_Job]) -> list[tuple[Any, Exception | None]]:
        """Run a group in one transaction; what each gave, or what went wrong with it."""
        try:
            with _told(self.path), self._writer.begin() as connection:
                return [_attempt(connection, job.work) for job in group]
        except Exception as error:  # noqa: BLE001 - belongs to the callers, who get it
            return [(None, error)] * len(group)


def _settle(group: Sequence[_Job], results: Sequence[tuple[Any, Exception | None]]) -> None:
    for job, (result, error) in zip(group, results, strict=True):
        if error is not None:
            job.done.set_exception(error)
        else:
            job.done.set_result(result)


def _attempt(connection: Connection, work: Work[Any]) -> tuple[Any, Exception | None]:
    """Run one work of a group; its own error takes back its own changes alone."""
    try:
        with connection.begin_nested():
            return work(connection), None
    except DBAPIError as error:
        if _code_of(error) in _REASONS:  # the whole transaction is lost
            raise
        return None, error
    except Exception as error:  # noqa: BLE001 - belongs to the caller, who gets it
        return None, error


def _nothing(_: Connection) -> None:
    """What wakes the writer up."""


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one of our errors."""
    try:
        yield
    except DBAPIError as error:
        code = _code_of(error)
        if code in _LOCKED:
            raise StoreBusy(f"{path} is locked by another process; try again in a moment") from error
        if code in _REASONS:
            raise StoreUnusable(f"{path}: {_REASONS[code]}") from error
        raise


def _code_of(error: DBAPIError) -> int:
    """SQLite's primary result code, 0 if unknown."""
    return int(getattr(error.orig, "sqlite_errorcode", 0) or 0) & 0xFF


@asynccontextmanager
async def open_database(path: Path, *, is_alone: bool = True) -> AsyncIterator[Database]:
    """Open the store at `path`, made and migrated if need be; writes are committed when the block ends.

    Without `is_alone` other processes may have it open too, as commands beside a running bot. Raises
    StoreInUse, StoreTooNew or StoreUnusable.
    """
    with ExitStack() as stack:
        stack.enter_context(instance_lock(path) if is_alone else nullcontext())
        with _told(path):
            await asyncio.to_thread(migrate, path)
        database = Database(path)
        stack.callback(database.dispose)
        async with asyncio.TaskGroup() as group:
            group.create_task(database.write_until_closed())
            try:
                yield database
            finally:
                await database.close()
