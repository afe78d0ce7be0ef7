"""The core with everything around it that a test can see and turn."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from bot.core import Core, Rules, open_core, open_desk
from bot.measures import Measures
from bot.receiving.access import Access
from bot.turns.bookkeeping import Wishes
from bot.words import Attached, Author, Inbound, Where
from storage.amounts import Rates
from storage.database import Database, Transaction, open_database
from storage.inbox import Event
from storage.ledger import Person, Standing, check, open_account, standing
from storage.rate import Rate
from storage.schema import turn
from storage.transcript import Said, _said
from swarm.sampling_params import SamplingParams
from tests.bot.clock import FakeClock
from tests.bot.platform import ADA, DIRECT, FakeBrain, FakePort, called, said, withdrawn

KEY = b"k" * 32
PATIENCE_TURNS = 3000
MOST_PASSING_TURNS = 100
TURN_S = 0.05
RULES = Rules(
    rates=Rates(daily_grant=10_000, balance_cap=20_000, prefill_percent=25, least_new_tokens=8),
    rate=Rate(burst=100, interval_ms=10),
    wishes=Wishes(SamplingParams(temperature=0.0, max_new_tokens=200)),
)


class World:
    """One bot, one platform, one model."""

    def __init__(self, store: Database, clock: FakeClock, port: FakePort, brain: FakeBrain) -> None:
        self.store = store
        self.clock = clock
        self.port = port
        self.brain = brain
        self.core: Core = None  # type: ignore[assignment]
        self.num_using_store = 0
        self._num_events = 0

    async def say(
        self,
        text: str,
        *,
        where: Where = DIRECT,
        author: Author = ADA,
        reply_to: str = "",
        event_id: str = "",
    ) -> str:
        """Somebody says something; returns the message's id."""
        event_id = event_id or self._new_id()
        event = said(
            text, event_id, where=where, author=author, reply_to=reply_to, sent_ms=self.clock.now_ms()
        )
        await self.core.receive("fake", [event])
        return event_id

    async def call(
        self, command: str, /, *, where: Where = DIRECT, author: Author = ADA, **arguments: str
    ) -> None:
        """Somebody gives a command."""
        event = called(
            command,
            self._new_id(),
            where=where,
            author=author,
            sent_ms=self.clock.now_ms(),
            **arguments,
        )
        await self.core.receive("fake", [event])

    async def send(self, text: str, *files: tuple[str, bytes], kind: str = "text/plain") -> str:
        """Ada sends files, with words or without; returns the message's id."""
        event_id = self._new_id()
        self.port.contents |= {f"{event_id}/{name}": content for name, content in files}
        attached = [Attached(name, kind, len(content), f"{event_id}/{name}") for name, content in files]
        inbound = Inbound(event_id, DIRECT, ADA, text, self.clock.now_ms(), files=tuple(attached))
        await self.core.receive("fake", [Event(event_id, "ada", msgspec.json.encode(inbound))])
        return event_id

    async def delete(self, message_id: str, *, where: Where = DIRECT) -> None:
        """Somebody deletes a message."""
        await self.core.receive("fake", [withdrawn(message_id, where=where, sent_ms=self.clock.now_ms())])

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Turn the clock, as far as need be, until something holds."""
        for _ in range(PATIENCE_TURNS):
            if condition():
                return
            await asyncio.sleep(0.001)
            await self.store_is_quiet()
            await self.clock.advance(TURN_S)
        raise AssertionError(what or f"it never came to that; to be seen is {self.port.texts}")

    async def store_is_quiet(self) -> None:
        """Wait, in real time, for the store's threads: on a busy machine no more than a moment is to pass."""
        async with asyncio.timeout(10):
            while self.num_using_store:  # noqa: ASYNC110 - counted by calls of many tasks
                await asyncio.sleep(0.001)

    async def pass_(self, seconds: float) -> None:
        """Let time go by; in larger steps if it is much."""
        turn_s = max(TURN_S, seconds / MOST_PASSING_TURNS)
        end_s = self.clock.now_s() + seconds
        while (left_s := end_s - self.clock.now_s()) > 0:
            await asyncio.sleep(0.001)
            await self.store_is_quiet()
            await self.clock.advance(min(turn_s, left_s))

    async def quiet(self) -> None:
        """Until everything that was said has been dealt with."""
        await self.until(lambda: not self.core.num_busy, "something never ends")
        assert await self._undelivered() == []

    async def ask(self, text: str, **where: object) -> str:
        """Say something, wait for the answer, and return it."""
        before = len(self.port.messages)
        await self.say(text, **where)  # type: ignore[arg-type]
        await self.quiet()
        return "\n".join(shown.post.text for shown in self.port.messages[before:] if not shown.is_gone)

    async def turns(self) -> list[Said]:
        """All turns, in the order in which they were asked."""
        return await self.store.read(lambda c: _said(c, turn.c.id.is_not(None)))

    async def standing(self, author: Author = ADA) -> Standing:
        """How somebody's account stands."""

        def read(connection: Transaction) -> Standing:
            now_ms = self.clock.now_ms()
            account_id = open_account(
                connection, Person("fake", author.external_id), RULES.rates, KEY, now_ms
            )
            return standing(connection, account_id, now_ms)

        return await self.store.write(read)

    async def check(self) -> None:
        """The books are true."""
        assert await self.store.read(check) == []

    async def _undelivered(self) -> list[str]:
        return await self.store.read(
            lambda c: list(c.scalars(select(turn.c.id).where(turn.c.delivered_at.is_(None))))
        )

    def _new_id(self) -> str:
        self._num_events += 1
        return f"e{self._num_events}"


def counted(world: World, use: Any) -> Any:
    """`use` of the store, counted while it is under way."""

    async def count(*args: Any, **kwargs: Any) -> Any:
        world.num_using_store += 1
        try:
            return await use(*args, **kwargs)
        finally:
            world.num_using_store -= 1

    return count


@asynccontextmanager
async def open_world(
    path: Path,
    *,
    boot: str = "boot",
    like: World | None = None,
    rules: Rules = RULES,
    measures: Measures | None = None,
    admins: Sequence[str] = (),
) -> AsyncIterator[World]:
    """A bot on the store at `path`; `like` another one, its platform and clock go on."""
    clock = like.clock if like is not None else FakeClock()
    port = like.port if like is not None else FakePort(clock)
    brain = FakeBrain(clock)
    async with open_database(path) as store:
        world = World(store, clock, port, brain)
        store.write, store.read = counted(world, store.write), counted(world, store.read)  # type: ignore[method-assign]
        world._num_events = like._num_events if like is not None else 0
        desk = open_desk(store, clock, KEY, rules, Access(clock, admins, KEY))
        ports = {"fake": port, "matrix": port}
        async with open_core(desk, brain, ports, boot=boot, rules=rules, measures=measures) as core:
            world.core = core
            yield world
        await world.check()
