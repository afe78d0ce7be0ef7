"""A bot over a real swarm, and what it costs the servers; run as a process, one that a test can kill.

`python -m tests.bot.talking STORE IDENTITY MODEL PEER...` says each line of its input to the bot, as Ada, and
prints a line when all is answered.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.clock import RealClock
from bot.core import Core, open_core, open_desk
from bot.sessions.brain import SwarmBrain, open_brain
from bot.sessions.pool import Limits
from bot.words import Author, Where
from storage.database import Database, open_database
from storage.ledger import check
from storage.schema import turn
from storage.transcript import Said, _said
from swarm.client import SwarmModel, join
from swarm.sampling_params import SamplingParams
from tests.bot.platform import ADA, DIRECT, FakePort, called, said
from tests.bot.world import KEY, RULES

ANSWER_TOKENS = 12
WITHIN_S = 50.0
TALK_RULES = replace(
    RULES, wishes=replace(RULES.wishes, params=SamplingParams(temperature=0.0, max_new_tokens=ANSWER_TOKENS))
)


@dataclass
class Talking:
    """A bot, and Ada who talks to it."""

    core: Core
    port: FakePort
    store: Database
    brain: SwarmBrain
    boot: str
    num_said: int = field(default=0)

    async def begin(
        self, text: str, *, where: Where = DIRECT, author: Author = ADA, reply_to: str = ""
    ) -> None:
        """Say something."""
        event = said(text, self._event_id(), where=where, author=author, reply_to=reply_to, sent_ms=_now_ms())
        await self.core.receive("fake", [event])

    async def say(
        self, text: str, *, where: Where = DIRECT, author: Author = ADA, reply_to: str = ""
    ) -> None:
        """Say something, and wait until it is answered."""
        await self.begin(text, where=where, author=author, reply_to=reply_to)
        await self.quiet()

    async def call(self, command: str, **arguments: str) -> None:
        """Give a command, and wait until it has had its effect."""
        event = called(command, self._event_id(), where=DIRECT, author=ADA, sent_ms=_now_ms(), **arguments)
        await self.core.receive("fake", [event])
        await self.quiet()

    async def quiet(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            await self.core.settle()

    async def turns(self) -> list[Said]:
        """All turns, in the order in which they were asked."""
        return await self.store.read(lambda c: _said(c, turn.c.id.is_not(None)))

    def _event_id(self) -> str:
        self.num_said += 1
        return f"{self.boot}{self.num_said}"


def _now_ms() -> int:
    return int(time.time() * 1000)


@asynccontextmanager
async def open_talking(
    model: SwarmModel,
    path: Path,
    *,
    boot: str = "boot",
    limits: Limits | None = None,
    tokens: int = ANSWER_TOKENS,
) -> AsyncIterator[Talking]:
    """A bot on the store at `path` with the sessions of `model`, which writes at most `tokens` at once."""
    clock = RealClock()
    port = FakePort(clock, letters=2000)
    params = replace(TALK_RULES.wishes.params, max_new_tokens=tokens)
    rules = replace(TALK_RULES, wishes=replace(TALK_RULES.wishes, params=params))
    async with open_database(path) as store, open_brain(model, store, clock, limits) as brain:
        desk = open_desk(store, clock, KEY, rules)
        async with open_core(desk, brain, {"fake": port}, boot=boot, rules=rules) as core:
            talking = Talking(core, port, store, brain, boot)
            await talking.quiet()
            yield talking
        assert await store.read(check) == []


async def main(store: str, identity: str, model: str, *peers: str) -> None:
    """Until the input ends, or somebody kills us."""
    async with join(peers, identity=Path(identity)) as swarm:
        loaded = await swarm.load(model, dtype="float32")
        async with open_talking(loaded, Path(store), boot="dying", tokens=200) as talking:
            print("ready", flush=True)  # noqa: T201 - the test waits for it
            while line := await asyncio.to_thread(sys.stdin.readline):
                await talking.say(line.strip())
                print("answered", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
