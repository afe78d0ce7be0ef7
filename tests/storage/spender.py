"""A process that spends: `python -m tests.storage.spender STORE BOOT COUNT` reserves and settles.

It prints a line once it has begun, and its number of operations when it is through.
"""

import asyncio
import contextlib
import random
import sys
from pathlib import Path

from sqlalchemy import Connection

from storage.amounts import Rates
from storage.database import Database, open_database
from storage.errors import QuotaExceeded
from storage.ledger import Person, Turn, heartbeat, open_account, reserve, settle

RATES = Rates(daily_grant=50_000, balance_cap=50_000)
PEOPLE = [Person("test", str(number)) for number in range(5)]
KEY = b"k" * 32
NOW = 1_700_000_000_000
CONCURRENT = 20


class Spender:
    """Somebody who runs turns, and never asks whether there is enough."""

    def __init__(self, store: Database, boot: str, count: int) -> None:
        self._store = store
        self._boot = boot
        self._left = count
        self._chance = random.Random(boot)
        self._next_turn = 0

    async def run(self) -> None:
        """Run turns, some at a time, until all operations are used up."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(self._run_turns())

    async def _run_turns(self) -> None:
        while self._left > 0:
            self._next_turn += 1
            turn = Turn(f"{self._boot}-{self._next_turn}", self._chance.randrange(200), 64)
            spent = self._chance.randrange(120)
            self._left -= 2
            with contextlib.suppress(QuotaExceeded):
                await self._run_turn(turn, spent)

    async def _run_turn(self, turn: Turn, spent: int) -> None:
        person = self._chance.choice(PEOPLE)

        def reserving(connection: Connection) -> None:
            account = open_account(connection, person, RATES, KEY, NOW)
            reserve(connection, account, turn, RATES, self._boot, NOW)

        await self._store.write(reserving)
        await self._store.write(heartbeat, turn.turn_id, spent // 2, NOW)
        for _ in range(self._chance.choice((1, 1, 2))):
            await self._store.write(settle, turn.turn_id, spent, NOW)


async def _main(path: str, boot: str, count: str) -> None:
    async with open_database(Path(path), is_alone=False) as store:
        print("begun", flush=True)  # noqa: T201
        await Spender(store, boot, int(count)).run()
    print(count, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
