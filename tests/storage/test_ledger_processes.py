"""Two processes spend from the same accounts, one is killed: no credit is lost, made, or spent twice."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.database import Database, open_database
from storage.ledger import check, settle_dead
from storage.schema import account, hold, ledger
from tests.storage.spender import BURST, NOW, ONE_TURN, POOR, RICH

Process = subprocess.Popen[str]
TOO_POOR = 64 + 200 * POOR.prefill_percent // 100
"""Whoever has less cannot pay for every turn."""


@contextmanager
def spenders(path: Path, *wanted: tuple[str, ...]) -> Iterator[list[Process]]:
    """Processes that spend, each with its name and its number of operations; all begin at the same time."""
    command = [sys.executable, "-m", "tests.storage.spender", str(path)]
    processes = [
        subprocess.Popen([*command, *each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in wanted
    ]
    try:
        for process in processes:
            wait_for(process, "begun")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for(process: Process, line: str) -> None:
    assert process.stdout is not None
    said = ""
    while said.strip() != line:
        said = process.stdout.readline()
        assert said, f"it ended before it said {line}"


async def settled(store: Database) -> None:
    """What holds in the end: everybody's books are right, and nobody has spent more than was granted."""
    assert await store.read(check) == []
    rows = await store.read(
        lambda c: c.execute(select(account.c.platform, account.c.balance, account.c.held)).all()
    )
    granted = {"poor": POOR.daily_grant, "rich": RICH.daily_grant}
    assert all(0 <= balance < granted[platform] and held == 0 for platform, balance, held in rows)
    assert all(balance < TOO_POOR for platform, balance, _ in rows if platform == "poor"), "none was refused"


async def turns_charged(store: Database) -> Counter[str]:
    """Entries that turns have in the ledger."""
    return Counter(
        await store.read(lambda c: list(c.scalars(select(ledger.c.turn_id).where(ledger.c.amount < 0))))
    )


@pytest.mark.parametrize(
    "count", [5_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_behaviour_20_two_processes_of_which_one_is_killed_leave_true_books(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "murmur.db"
    await made(path)
    killed_after = count // 4
    with spenders(path, ("dying", str(count)), ("living", str(count - killed_after))) as (dying, living):
        wait_for(dying, str(killed_after))
        dying.kill()
        assert dying.wait(5) == -signal.SIGKILL
        wait_for(living, "through")
        assert living.wait(10) == 0
    async with open_database(path) as store:
        charged = await turns_charged(store)
        assert max(charged.values()) == 1
        by_boot = Counter(turn_id.partition("-")[0] for turn_id in charged)
        assert min(by_boot["dying"], by_boot["living"]) > count // 25
        left = await store.read(lambda c: list(c.scalars(select(hold.c.boot))))
        assert set(left) <= {"dying"}
        assert len(await store.write(settle_dead, "next", NOW)) == len(left)
        await settled(store)
        assert max((await turns_charged(store)).values()) == 1


@pytest.fixture(scope="module")
def after_burst(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a thousand turns wanted to begin at once, of two processes, for one person."""
    path = tmp_path_factory.mktemp("burst") / "murmur.db"
    asyncio.run(made(path))
    with spenders(path, ("one", "500", "at once"), ("other", "500", "at once")) as processes:
        for process in processes:
            wait_for(process, "through")
    return path


async def made(path: Path) -> None:
    async with open_database(path):
        pass


async def test_behaviour_20_a_thousand_reserves_at_once_hold_exactly_what_there_is(after_burst: Path) -> None:
    async with open_database(after_burst) as store:
        holds = await store.read(lambda c: list(c.scalars(select(hold.c.amount))))
        assert holds == [ONE_TURN] * (BURST.daily_grant // ONE_TURN)
        assert await store.read(check) == []


async def test_behaviour_22_a_day_is_granted_once_whichever_process_asks(after_burst: Path) -> None:
    async with open_database(after_burst) as store:
        entries = await store.read(lambda c: c.execute(select(ledger.c.kind, ledger.c.amount)).all())
        assert [tuple(entry) for entry in entries] == [("daily", BURST.daily_grant)]
