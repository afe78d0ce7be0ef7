"""A process that spends: `python -m tests.storage.spender STORE BOOT COUNT` reserves and settles.

It says "begun" when it is ready and waits for a line; then it tells every REPORT operations how many it has
done, and "through" in the end. With a fourth argument it reserves alone, COUNT times at once.
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

POOR = Rates(daily_grant=4_000, balance_cap=4_000)
RICH = Rates(daily_grant=100_000_000, balance_cap=100_000_000)
PEOPLE = [(Person("poor", str(number)), POOR) for number in range(3)]
PEOPLE += [(Person("rich", str(number)), RICH) for number in range(3)]
ONE_TURN = 64
BURST = Rates(daily_grant=100 * ONE_TURN, balance_cap=100 * ONE_TURN, least_new_tokens=ONE_TURN)
"""Enough for a hundred turns, and for no part of another."""
KEY = b"k" * 32
NOW = 1_700_000_000_000
CONCURRENT = 32
REPORT = 50


class Spender:
    """Somebody who runs turns, and never asks whether there is enough."""

    def __init__(self, store: Database, boot: str, count: int) -> None:
        self._store = store
        self._boot = boot
        self._count = count
        self._num_done = 0
        self._chance = random.Random(boot)
        self._next_turn = 0

    async def run(self) -> None:
        """Run turns, some at a time, until there were enough operations."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(self._run_turns())

    async def reserve_at_once(self) -> None:
        """As many reservations as are wanted, all at the same time, on one account."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(
                    self._reserve(Turn(f"{self._boot}-{number}", 0, ONE_TURN), PEOPLE[0][0], BURST)
                )

    async def _run_turns(self) -> None:
        while self._num_done < self._count:
            self._next_turn += 1
            turn = Turn(f"{self._boot}-{self._next_turn}", self._chance.randrange(200), 64)
            person, rates = self._chance.choice(PEOPLE)
            if await self._reserve(turn, person, rates):
                await self._spend(turn.turn_id, self._chance.randrange(120))

    async def _reserve(self, turn: Turn, person: Person, rates: Rates) -> bool:
        def reserving(connection: Connection) -> None:
            account = open_account(connection, person, rates, KEY, NOW)
            reserve(connection, account, turn, rates, self._boot, NOW)

        granted = False
        with contextlib.suppress(QuotaExceeded):
            await self._store.write(reserving)
            granted = True
        self._note_done()
        return granted

    async def _spend(self, turn_id: str, spent: int) -> None:
        await self._store.write(heartbeat, turn_id, spent // 2, NOW)
        self._note_done()
        for _ in range(self._chance.choice((1, 1, 2))):
            await self._store.write(settle, turn_id, spent, NOW)
            self._note_done()

    def _note_done(self) -> None:
        self._num_done += 1
        if self._num_done % REPORT == 0:
            print(self._num_done, flush=True)  # noqa: T201


async def _main(path: str, boot: str, count: str, *how: str) -> None:
    async with open_database(Path(path), is_alone=False) as store:
        print("begun", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        spender = Spender(store, boot, int(count))
        await (spender.reserve_at_once() if how else spender.run())
    print("through", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
