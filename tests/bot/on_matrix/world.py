"""A bot on a real homeserver: the adapter, the core, a store of its own, and a model that repeats you."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from nio import AsyncClient, AsyncClientConfig
from sqlalchemy import select

from bot.clock import RealClock
from bot.config.platforms import MatrixSettings
from bot.core import Core, Rules, open_core, open_desk
from bot.on_matrix.adapter import MatrixAdapter
from bot.receiving.access import Access
from bot.turns.bookkeeping import Wishes
from storage.amounts import Rates
from storage.database import Database, open_database
from storage.ledger import check
from storage.rate import Rate
from storage.schema import turn
from storage.transcript import Said, _said
from swarm.background import running
from swarm.sampling_params import SamplingParams
from tests.bot.platform import FakeBrain
from tests.matrix_peer.human import Human
from tests.matrix_peer.synapse import Account

KEY = b"k" * 32
WITHIN_S = 20.0
UNLIMITED = {"send_burst": 10_000, "sends_per_second": 1000.0}
RULES = Rules(
    rates=Rates(daily_grant=1_000_000, balance_cap=2_000_000, prefill_percent=25, least_new_tokens=8),
    rate=Rate(burst=100, interval_ms=10),
    wishes=Wishes(SamplingParams(temperature=0.0, max_new_tokens=5000)),
)


class Bot:
    """A bot that runs. See `open_bot`."""

    def __init__(
        self, client: AsyncClient, store: Database, adapter: MatrixAdapter, brain: FakeBrain
    ) -> None:
        self.client = client
        self.store = store
        self.adapter = adapter
        self.brain = brain
        self.core: Core = None  # type: ignore[assignment]

    @property
    def user_id(self) -> str:
        return str(self.client.user_id)

    async def until(self, condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Wait until something holds."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "it never came to that"
            await asyncio.sleep(0.02)

    async def quiet(self, within_s: float = WITHIN_S) -> None:
        """Until all that was heard has been dealt with."""
        await self.until(lambda: not self.core.num_busy, within_s)

    async def turns(self) -> list[Said]:
        """All turns, in the order in which they were asked."""
        return await self.store.read(lambda c: _said(c, turn.c.id.is_not(None)))

    async def undelivered(self) -> int:
        """Answers that are not shown yet."""
        return len(
            await self.store.read(
                lambda c: list(c.scalars(select(turn.c.id).where(turn.c.delivered_at.is_(None))))
            )
        )


class Place:
    """A room with somebody in it and the bot."""

    def __init__(self, human: Human, bot: Bot, room_id: str) -> None:
        self.human = human
        self.bot = bot
        self.room_id = room_id

    async def say(self, text: str, **more: Any) -> str:
        return await self.human.say(self.room_id, text, **more)

    async def call(self, text: str) -> str:
        """Say something to the bot by name."""
        return await self.say(text, mentions=[self.bot.user_id])

    async def reads(self, text: str, within_s: float = WITHIN_S) -> Any:
        """Wait until the bot says exactly that."""
        return await self.human.wait_for_text(self.room_id, text, self.bot.user_id, within_s)

    async def until(self, find: Callable[[list[Any]], Any], within_s: float = WITHIN_S) -> Any:
        """Wait until something is found in the bot's messages."""
        me = self.bot.user_id
        return await self.human.until(
            self.room_id, lambda them: find([it for it in them if it.sender == me]), within_s
        )

    async def texts(self) -> list[str]:
        """All that the bot has said, as it looks now."""
        await self.human.sync()
        return self.human.visible_text(self.room_id, self.bot.user_id)


@contextlib.asynccontextmanager
async def open_client(url: str, account: Account, device_id: str = "BOT") -> AsyncIterator[AsyncClient]:
    """The bot's account, logged in on the device of that name, which does not encrypt."""
    config = AsyncClientConfig(
        encryption_enabled=False, store_sync_tokens=False, max_limit_exceeded=0, max_timeouts=0
    )
    client = AsyncClient(url, account.user_id, device_id=device_id, config=config)
    try:
        await client.login(account.password)
        assert client.logged_in
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def open_bot(
    client: AsyncClient,
    store_path: Path,
    *,
    boot: str = "boot",
    answer: str = "",
    admins: Sequence[str] = (),
    rules: Rules = RULES,
    **settings: Any,
) -> AsyncIterator[Bot]:
    """A bot on the store at `store_path`, reading for the length of the block.

    It says `answer` to everything, if there is one.
    """
    clock = RealClock()
    brain = FakeBrain(clock, token_s=0.0)
    if answer:
        brain.answer = lambda prompt: answer
    async with open_database(store_path) as store:
        brain.max_tokens = 100_000
        access = Access(clock, admins, KEY)
        own = MatrixSettings(**(UNLIMITED | settings))
        adapter = MatrixAdapter(client, own, store, clock, access=access)
        bot = Bot(client, store, adapter, brain)
        desk = open_desk(store, clock, KEY, rules, access)
        ports = {"matrix": adapter.port}
        async with open_core(desk, brain, ports, boot=boot, rules=rules) as core:
            bot.core = core
            async with running(adapter.read_forever(core, brain.survey)):
                await bot.until(lambda: adapter.synced_s is not None)
                yield bot
        assert await store.read(check) == []


async def meet(human: Human, bot: Bot, *, direct: bool = False, **how: Any) -> Place:
    """A new room in which the bot is: a chat of two, or a group with an invitation for somebody else."""
    room_id = await human.create_room(bot.user_id, direct=direct, **how)
    await human.wait_for_member(room_id, bot.user_id)
    return Place(human, bot, room_id)
