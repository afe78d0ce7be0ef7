"""The store's file: opened under a lock, migrated, read beside writers, written in groups.

A write is a function of a connection, and one transaction. Those that wait together are committed together,
each in a savepoint of its own, so that one that fails takes nothing with it and many cost one commit. They
run on one thread: a hop to a driver's thread for each statement costs five times as much as the statements.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from storage.engines import NUM_READERS, PAUSE_S, reading_engine, scrub, writing_engine
from storage.errors import StoreBusy, StoreUnusable
from storage.lock import instance_lock
from storage.migrating import check_schema, migrate

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[[Connection], T]
Transaction = Connection
"""What a use case gets from us; who composes some of them needs no other word of SQLAlchemy."""

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


class _Job:
    """A write that waits. Whoever claims it first, the thread or a caller who gives up, has it."""

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self.since_s = time.monotonic()
        self.outcome: Future[Any] = Future()

    def settle(self, result: Any, error: Exception | None) -> None:
        """Tell the caller, from the writer's thread."""
        with suppress(RuntimeError):  # the caller's loop may have ended
            if error is not None:
                self.outcome.set_exception(error)
            else:
                self.outcome.set_result(result)


class Database:
    """An open store. See `open_database`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = writing_engine(path)
        self._readers = reading_engine(path)
        self._read_threads = ThreadPoolExecutor(NUM_READERS, thread_name_prefix="murmur-store-reader")
        self._waiting: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._is_closed = False
        self.on_write: Callable[[float], None] = lambda seconds: None
        """Told, on another thread, how long each write took with all its waiting."""
        self._write_thread = threading.Thread(
            target=self._write_until_closed, name="murmur-store-writer", daemon=True
        )
        self._write_thread.start()

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)` in a transaction; return what it returns once that is committed.

        If the caller is cancelled, a transaction that has begun is not: the cancellation comes through when
        it has ended. Raises what `work` raises, with nothing written; StoreBusy; StoreUnusable.
        """
        outcome = self._put(lambda connection: work(connection, *args, **kwargs))
        done = asyncio.wrap_future(outcome)
        try:
            result: T = await asyncio.shield(done)
        except asyncio.CancelledError:
            if not outcome.cancel():
                await asyncio.wait([done])
            raise
        return result

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)` on one consistent view of the store.

        Raises StoreUnusable, or what `work` raises.
        """
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(
            self._read_threads, self._read, lambda connection: work(connection, *args, **kwargs)
        )

    async def scrub(self) -> None:
        """Leave nothing of what was deleted in the file beside the store. Raises StoreUnusable."""
        self._check_open()
        await asyncio.get_running_loop().run_in_executor(self._read_threads, scrub, self.path)

    async def close(self) -> None:
        """Commit what waits, then take no more; a cancellation comes through when that is done."""
        self._is_closed = True
        joined = asyncio.get_running_loop().run_in_executor(None, self._join)
        cancelled: asyncio.CancelledError | None = None
        while not joined.done():
            try:
                await asyncio.wait([joined])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def dispose(self) -> None:
        """Let go of the file, once nothing is written any more."""
        self._is_closed = True
        self._join()
        self._read_threads.shutdown()
        self._writer.dispose()
        self._readers.dispose()

    def _put(self, work: Work[Any]) -> "Future[Any]":
        self._check_open()
        job = _Job(work)
        try:
            self._waiting.put_nowait(job)
        except queue.Full as error:
            raise StoreBusy("too many writes wait already; try again in a moment") from error
        return job.outcome

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnusable(f"{self.path} is closed")

    def _join(self) -> None:
        if self._write_thread.is_alive():
            self._waiting.put(None)
            self._write_thread.join()

    def _read(self, work: Work[T]) -> T:
        with _told(self.path), self._readers.begin() as connection:
            return work(connection)

    def _write_until_closed(self) -> None:
        """Commit what waits, group by group."""
        is_open = True
        while is_open:
            group = [self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            is_open = None not in group
            jobs = [job for job in group if job is not None and job.outcome.set_running_or_notify_cancel()]
            for job, (result, error) in zip(jobs, self._commit(jobs), strict=True):
                self.on_write(time.monotonic() - job.since_s)
                job.settle(result, error)
            time.sleep(PAUSE_S)

    def _commit(self, group: Sequence[_Job]) -> list[tuple[Any, Exception | None]]:
        """Run a group in one transaction; what each gave, or what went wrong with it."""
        if not group:
            return []
        try:
            with _told(self.path), self._writer.begin() as connection:
                return [_attempt(connection, job.work) for job in group]
        except Exception as error:  # noqa: BLE001 - belongs to the callers, who get it
            return [(None, error)] * len(group)


def _attempt(connection: Connection, work: Work[Any]) -> tuple[Any, Exception | None]:
    """Run one work of a group; its own error takes back its own changes alone."""
    try:
        with connection.begin_nested():
            return work(connection), None
    except DBAPIError as error:
        first = _first_of(error)
        if _code_of(first) in _REASONS:  # the whole transaction is lost
            raise first from None
        return None, error
    except Exception as error:  # noqa: BLE001 - belongs to the caller, who gets it
        return None, error


def _first_of(error: DBAPIError) -> DBAPIError:
    """What SQLite said first: when the disk is full it takes all back by itself, and misses the savepoint."""
    first, before = error, error.__context__
    while before is not None:
        first = before if isinstance(before, DBAPIError) else first
        before = before.__context__
    return first


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


def _make_private(path: Path) -> None:
    """Make a store that is not there yet its owner's alone; SQLite makes what lies beside it the same."""
    with suppress(OSError):  # it is there, or SQLite says next why it cannot be
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


@asynccontextmanager
async def open_database(path: Path, *, is_alone: bool = True) -> AsyncIterator[Database]:
    """Open the store at `path`, made and migrated if need be; writes are committed when the block ends.

    Without `is_alone` other processes may have it open too, as commands beside a running bot: then it must be
    there, and of this version. Raises StoreInUse, StoreTooNew or StoreUnusable.
    """
    with ExitStack() as stack:
        stack.enter_context(instance_lock(path) if is_alone else nullcontext())
        if is_alone:
            _make_private(path)
        with _told(path):
            await asyncio.to_thread(migrate if is_alone else check_schema, path)
        database = Database(path)
        stack.callback(database.dispose)
        try:
            yield database
        finally:
            await database.close()
