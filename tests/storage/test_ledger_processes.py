"""Two processes spend from the same accounts, one is killed: no credit is lost, made, or spent twice."""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from storage.database import Database, open_database
from storage.ledger import check, settle_dead
from storage.schema import account, hold, ledger
from tests.storage.spender import NOW, RATES


def spender(path: Path, boot: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.storage.spender", str(path), boot, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


async def settled(store: Database) -> None:
    """What holds in the end: everybody's books are right, and nobody has spent more than was granted."""
    assert await store.read(check) == []
    balances = await store.read(lambda c: c.execute(select(account.c.balance, account.c.held)).all())
    assert all(0 <= balance <= RATES.daily_grant and held == 0 for balance, held in balances)
    turns = await store.read(lambda c: list(c.scalars(select(ledger.c.turn_id).where(ledger.c.amount < 0))))
    assert turns
    assert max(Counter(turns).values()) == 1


@pytest.mark.parametrize(
    "count", [5_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_behaviour_20_two_processes_of_which_one_is_killed_leave_true_books(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "murmur.db"
    async with open_database(path):
        pass
    dying, living = spender(path, "dying", count), spender(path, "living", count // 2)
    try:
        await asyncio.sleep(0.5 if count < 10_000 else 20.0)
        dying.kill()
        assert living.wait(500) == 0
        assert dying.wait(5) != 0, "it was through before it was killed"
    finally:
        for process in (dying, living):
            process.kill()
            process.communicate()
    async with open_database(path) as store:
        left = await store.read(lambda c: set(c.scalars(select(hold.c.boot))))
        assert left <= {"dying"}
        assert set(await store.write(settle_dead, "next", NOW)) or not left
        await settled(store)
