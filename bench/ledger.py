"""Operations on the ledger from two processes on one store: reserve, settle, reserve, ... as fast as they go.

What counts is that the slower process keeps its share, nobody waits long for the write lock, and the books
are true.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Found
from storage.amounts import Rates
from storage.database import Database, open_database
from storage.ledger import Person, Turn, check, open_account, reserve, settle

GOAL = 1000.0
PAIRS = 3
SECONDS = 5.0
CONCURRENT = 50
RATES = Rates(daily_grant=10**12, balance_cap=10**12)
NOW = 1_700_000_000_000


async def measure(pairs: int = PAIRS) -> Found:
    """Let two processes spend side by side, some times."""
    results = [await _measured() for _ in range(pairs)]
    rates, shares, waits, drifts = zip(*results, strict=True)
    return Found(
        "ledger",
        f"reserves and settles a second on one SQLite file, two processes, {CONCURRENT} at a time each",
        round(statistics.median(rates)),
        GOAL,
        pairs,
        unit=" /s",
        details={
            "least_share": round(min(shares), 3),
            "p99_ms": round(1e3 * max(waits)),
            "wrong_accounts": sum(drifts),
        },
        also={
            "least_share >= 0.25": min(shares) >= 0.25,
            "p99_ms <= 2000": max(waits) <= 2.0,
            "wrong_accounts = 0": not sum(drifts),
        },
    )


async def _measured() -> tuple[float, float, float, int]:
    """Operations a second, the slower one's share, the longest p99 in seconds, accounts that are wrong."""
    with tempfile.TemporaryDirectory(prefix="murmur-bench-") as folder:
        path = Path(folder) / "murmur.db"
        async with open_database(path):
            pass
        async with asyncio.TaskGroup() as group:
            spenders = [group.create_task(_spender(path, name)) for name in ("a", "b")]
        spent = [spender.result() for spender in spenders]
        async with open_database(path) as store:
            wrong = await store.read(check)
    speeds = [each["count"] / each["seconds"] for each in spent]
    return sum(speeds), min(speeds) / sum(speeds), max(each["p99_s"] for each in spent), len(wrong)


async def _spender(path: Path, name: str) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.ledger", str(path), name, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    told: dict[str, float] = json.loads(output)
    return told


async def _spend(path: Path, name: str) -> dict[str, float]:
    waits: list[float] = []
    async with open_database(path, is_alone=False) as store:
        person = Person("bench", name)
        account = await store.write(open_account, person, RATES, b"", NOW)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(CONCURRENT):
                group.create_task(_take_turns(store, account, f"{name}-{number}", started + SECONDS, waits))
        seconds = time.perf_counter() - started
    waits.sort()
    return {"count": len(waits), "seconds": seconds, "p99_s": waits[int(0.99 * len(waits))]}


async def _take_turns(store: Database, account: int, name: str, until: float, waits: list[float]) -> None:
    number = 0
    while time.perf_counter() < until:
        number += 1
        turn = Turn(f"{name}-{number}", 40, 200)
        began = time.perf_counter()
        await store.write(reserve, account, turn, RATES, name, NOW)
        reserved = time.perf_counter()
        await store.write(settle, turn.turn_id, 100, NOW)
        waits += (reserved - began, time.perf_counter() - reserved)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_spend(Path(sys.argv[1]), sys.argv[2]))))
