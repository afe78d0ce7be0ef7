"""Engines on the store's file, each set up for one purpose.

SQLAlchemy's defaults lose updates on SQLite: the driver begins transactions by itself, late and deferred.
Here the driver begins none, and every transaction begins as what it is: IMMEDIATE where it may write.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import OperationalError

BUSY_MS = 5000
LOOK_S = 0.0005
PAUSE_S = 0.001
"""What a writer leaves between two transactions, for those of other processes."""
NUM_READERS = 4


def writing_engine(path: Path) -> Engine:
    """One connection, whose transactions hold the write lock from their first moment."""
    engine = _engine(path, num_connections=1)
    _set_up(engine, "BEGIN IMMEDIATE", foreign_keys="ON", query_only="OFF")
    return engine


def reading_engine(path: Path) -> Engine:
    """A few connections that never wait for a writer, and can write nothing."""
    engine = _engine(path, num_connections=NUM_READERS)
    _set_up(engine, "BEGIN", foreign_keys="ON", query_only="ON")
    return engine


def _engine(path: Path, *, num_connections: int) -> Engine:
    return create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=num_connections,
        max_overflow=0,
        connect_args={"check_same_thread": False},
        hide_parameters=True,  # errors are logged, and what people write is not
    )


def migrating_engine(path: Path) -> Engine:
    """For alembic alone: rebuilding a parent table with foreign keys on would empty its children."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, hide_parameters=True)
    _set_up(engine, "BEGIN IMMEDIATE", foreign_keys="OFF", query_only="OFF")
    return engine


def scrub(path: Path) -> None:
    """Move what the WAL holds into the store and empty it: it may have old pages of what was deleted since.

    Waits for others who read or write. What they keep from being emptied for longer than BUSY_MS stays until
    the next time.
    """
    engine, deadline_s = migrating_engine(path), time.monotonic() + BUSY_MS / 1000
    try:
        with engine.connect() as connection:
            connection.rollback()
            while not _is_emptied(connection) and time.monotonic() < deadline_s:
                time.sleep(PAUSE_S)
    finally:
        engine.dispose()


def _is_emptied(connection: Connection) -> bool:
    pragma = "PRAGMA wal_checkpoint(TRUNCATE)"
    is_busy, _, _ = connection.connection.execute(pragma).fetchone()  # type: ignore[attr-defined]
    return not is_busy


def _set_up(engine: Engine, begin: str, **pragmas: str) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA secure_delete=ON")  # what people have deleted leaves no bytes
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name}={value}")
        cursor.execute("PRAGMA busy_timeout=0")  # from here on we wait ourselves, see _begin_in_turn
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        _begin_in_turn(connection, begin)


def _begin_in_turn(connection: Any, begin: str) -> None:
    """Begin as soon as nobody else writes. Raises OperationalError if somebody does for BUSY_MS.

    SQLite's own waiting looks again after up to 100 ms: whoever writes all the time is back by then, and the
    other process starves. We look every half millisecond, and a writer pauses for longer (`PAUSE_S`).
    """
    deadline_s = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.exec_driver_sql(begin)
        except OperationalError as error:
            is_busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline_s:
                raise
            time.sleep(LOOK_S)
        else:
            return
