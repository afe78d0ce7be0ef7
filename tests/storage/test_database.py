"""The store's file: transactions that end as they were told, locks, and what an operator reads."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, OperationalError

from storage.database import MAX_WAITING, Database, open_database
from storage.errors import StoreBusy, StoreInUse, StoreTooNew, StoreUnusable
from tests.storage.people import upgrade_to


def add(platform: str, name: str = "somebody") -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(
            text("INSERT INTO account (platform, external_id, created_at) VALUES (:platform, :name, 0)"),
            {"platform": platform, "name": name},
        )
        return platform

    return work


def platforms(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT platform FROM account ORDER BY id")))


async def test_what_is_written_together_fails_alone(store: Database) -> None:
    results = await asyncio.gather(
        *(store.write(add(platform)) for platform in ("a", "b", "a", "c")), return_exceptions=True
    )
    assert [result if isinstance(result, str) else type(result) for result in results] == [
        "a", "b", IntegrityError, "c",
    ]  # fmt: skip
    assert await store.read(platforms) == ["a", "b", "c"]


async def test_a_write_that_raises_leaves_nothing(store: Database) -> None:
    def work(connection: Connection) -> None:
        add("a")(connection)
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await store.write(work)
    assert await store.read(platforms) == []


async def test_a_cancelled_write_that_had_begun_is_committed_before_the_cancellation_is_seen(
    store: Database,
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        begun.set()
        assert may_end.wait(10)
        add("a")(connection)

    writing = asyncio.create_task(store.write(work))
    await asyncio.to_thread(begun.wait, 10)
    waiting = asyncio.create_task(store.write(add("never")))
    await asyncio.sleep(0)
    for task in (writing, waiting):
        task.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    may_end.set()
    for task in (writing, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await store.read(platforms) == ["a"]


async def test_reads_do_not_wait_for_a_write_and_cannot_write(store: Database) -> None:
    may_end = threading.Event()
    writing = asyncio.create_task(store.write(lambda connection: may_end.wait(10)))
    await asyncio.sleep(0)
    try:
        assert await store.read(platforms) == []
        with pytest.raises(StoreUnusable, match="may not be written"):
            await store.read(add("a"))
    finally:
        may_end.set()
        await writing


async def test_writes_beyond_the_queue_are_refused_at_once(store: Database) -> None:
    may_end = threading.Event()
    held = asyncio.create_task(store.write(lambda connection: may_end.wait(10)))
    await asyncio.sleep(0.01)
    tasks = [asyncio.create_task(store.write(platforms)) for _ in range(MAX_WAITING + 1)]
    await asyncio.sleep(0)
    may_end.set()
    results = await asyncio.gather(held, *tasks, return_exceptions=True)
    assert sum(isinstance(result, StoreBusy) for result in results) == 1


async def test_what_waits_when_the_store_closes_is_committed(tmp_path: Path) -> None:
    async with open_database(tmp_path / "murmur.db") as store:
        tasks = [asyncio.create_task(store.write(add(str(number)))) for number in range(100)]
        await asyncio.sleep(0)
    assert [await task for task in tasks] == [str(number) for number in range(100)]
    with pytest.raises(StoreUnusable, match="is closed"):
        await store.write(platforms)


async def test_a_store_and_what_lies_beside_it_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        async with open_database(tmp_path / "murmur.sqlite3") as store:
            await store.write(add("a"))
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert {"murmur.sqlite3", "murmur.sqlite3-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def test_behaviour_30_a_second_bot_is_refused_and_names_the_first(store: Database) -> None:
    with pytest.raises(StoreInUse, match=r"another bot, process \d+"):
        async with open_database(store.path):
            pass
    async with open_database(store.path, is_alone=False) as beside:
        await beside.write(add("a"))
    assert await store.read(platforms) == ["a"]


async def test_another_process_that_keeps_the_lock_too_long_is_told(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.engines.BUSY_MS", 50)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="locked by another process"):
        await store.write(add("a"))
    other.execute("ROLLBACK")
    other.close()
    assert await store.write(add("a")) == "a"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"not a database at all" * 100, "no SQLite database"), (None, "cannot be opened")],
)
async def test_a_file_that_is_no_store_is_told_in_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "murmur.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=sentence):
        async with open_database(path):
            pass


async def test_behaviour_30_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    async with open_database(path) as store:
        await store.write(
            lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num='9999'")
        )
    with pytest.raises(StoreTooNew, match=r"newer Murmur \(schema 9999\)"):
        async with open_database(path):
            pass


async def test_a_mistake_in_sql_is_the_callers_own(store: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        await store.write(lambda connection: connection.exec_driver_sql("SELECT * FROM nowhere"))


async def test_an_error_in_the_block_comes_out_as_it_is_and_what_waits_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    writes: list[asyncio.Task[str]] = []

    async def fail() -> None:
        async with open_database(path) as store:
            writes.extend(asyncio.create_task(store.write(add(f"p{number}"))) for number in range(20))
            await asyncio.sleep(0)
            raise StoreBusy("mine")

    with pytest.raises(StoreBusy, match="mine"):
        await fail()
    assert [await write for write in writes] == [f"p{number}" for number in range(20)]
    async with open_database(path) as store:
        assert len(await store.read(platforms)) == 20


async def test_a_cancellation_in_the_block_leaves_nobody_waiting(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def hold(writes: "list[asyncio.Task[str]]") -> None:
        async with open_database(tmp_path / "murmur.db") as store:
            writes += [asyncio.create_task(store.write(add(f"p{number}"))) for number in range(20)]
            entered.set()
            await asyncio.Event().wait()

    writes: list[asyncio.Task[str]] = []
    holding = asyncio.create_task(hold(writes))
    await entered.wait()
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    async with asyncio.timeout(5):
        assert len([await write for write in writes]) == 20


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with open_database(tmp_path / "murmur.db") as store:
        pass
    for use in (store.read, store.write):
        with pytest.raises(StoreUnusable, match="is closed"):
            await use(platforms)


async def test_a_command_beside_a_bot_neither_makes_nor_upgrades_a_store(tmp_path: Path) -> None:
    path = tmp_path / "murmur.db"
    with pytest.raises(StoreUnusable, match="there is no store at"):
        async with open_database(path, is_alone=False):
            pass
    assert not path.exists()
    upgrade_to(path, "0001")
    with pytest.raises(StoreUnusable, match="older Murmur: start the bot once, which upgrades it"):
        async with open_database(path, is_alone=False):
            pass
    assert not list(tmp_path.glob("*.before-*"))


async def test_what_was_deleted_leaves_no_bytes_once_the_store_is_scrubbed(store: Database) -> None:
    secret = "very private words"
    await store.write(add(secret))
    await store.write(lambda c: c.execute(text("DELETE FROM account")))
    await store.scrub()
    assert secret.encode() not in on_disk(store)


async def test_scrubbing_waits_for_who_still_reads_what_was_deleted(store: Database) -> None:
    secret, reads, done = "very private words", asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read_slowly(connection: Connection) -> int:
        found = len(connection.execute(text("SELECT platform FROM account")).all())
        loop.call_soon_threadsafe(reads.set)
        done.wait(10)
        return found

    await store.write(add(secret))
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(store.read(read_slowly))
        await reads.wait()
        await store.write(lambda c: c.execute(text("DELETE FROM account")))
        scrubbing = group.create_task(store.scrub())
        await asyncio.sleep(0.1)
        assert not scrubbing.done()
        done.set()
    assert reading.result() == 1
    assert secret.encode() not in on_disk(store)


def on_disk(store: Database) -> bytes:
    return b"".join(file.read_bytes() for file in store.path.parent.glob("murmur.db*"))
