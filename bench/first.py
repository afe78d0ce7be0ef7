"""How much later a room sees the first text of an answer than the swarm has it, the bot's own part alone.

A real swarm of two servers answers the same question, in turn, straight from the Python API and through the
whole bot: event kept, turn queued, quota held, session opened, first text posted. Each time it is somebody's
first message in a room of their own. The platform is a list in memory, so its own time is not counted.
"""

import asyncio
import secrets
import statistics
import time
from pathlib import Path

import msgspec

from bench.memory_port import MemoryPort
from bench.report import Found
from bench.swarms import open_swarm
from bot.clock import RealClock
from bot.core import Core, Rules, open_core, open_desk
from bot.sessions.brain import open_brain
from bot.turns.bookkeeping import Wishes
from bot.words import Author, Inbound, Where
from storage.amounts import Rates
from storage.database import open_database
from storage.inbox import Event
from swarm.client import SwarmModel, join
from swarm.sampling_params import SamplingParams

GOAL_S = 1.0
PAIRS = 9
PATIENCE_S = 60.0
MODEL = Path(__file__).parents[1] / "demo" / "model"
QUESTION = "What is a block server?"
PARAMS = SamplingParams(temperature=0.0, max_new_tokens=40)
RULES = Rules(rates=Rates(daily_grant=10**9, balance_cap=10**9), wishes=Wishes(PARAMS))


async def measure(pairs: int = PAIRS) -> Found:
    """Ask in turn without the bot and through it."""
    async with open_swarm(MODEL) as swarm:
        num_blocks = swarm.checkpoint.num_blocks
        await swarm.start((0, num_blocks // 2), (num_blocks // 2, num_blocks))
        async with join(swarm.initial_peers) as joined:
            model = await joined.load(str(MODEL))
            await _alone_s(model)
            times = await _times(model, swarm.folder / "murmur.db", pairs)
    extra = [through_s - alone_s for alone_s, through_s in times]
    alone_s, through_s = (statistics.median(each) for each in zip(*times, strict=True))
    return Found(
        "first",
        "seconds from a room's first message to its first visible text, beyond what the swarm needs",
        round(statistics.median(extra), 3),
        GOAL_S,
        pairs,
        is_least=False,
        unit=" s",
        details={
            "alone_s": round(alone_s, 3),
            "through_the_bot_s": round(through_s, 3),
            "longest_s": round(max(extra), 3),
        },
    )


async def _times(model: SwarmModel, path: Path, pairs: int) -> list[tuple[float, float]]:
    """Seconds to the first token without the bot and to the first text through it, for each pair."""
    clock, port = RealClock(), MemoryPort(RealClock())
    async with open_database(path) as store, open_brain(model, store, clock) as brain:
        desk = open_desk(store, clock, secrets.token_bytes(32), RULES)
        async with open_core(desk, brain, {"bench": port}, boot="bench", rules=RULES) as core:
            return [
                (await _alone_s(model), await _through_s(core, port, clock, f"m{number}"))
                for number in range(pairs)
            ]


async def _alone_s(model: SwarmModel) -> float:
    started = time.perf_counter()
    async with model.session() as session:
        async for piece in model.stream(session, QUESTION, PARAMS):
            if piece:
                return time.perf_counter() - started
    raise AssertionError("the model says nothing")


async def _through_s(core: Core, port: MemoryPort, clock: RealClock, event_id: str) -> float:
    author = Author(event_id, event_id)
    room = Where("bench", event_id, "direct")
    inbound = Inbound(event_id, room, author, QUESTION, clock.now_ms())
    started = time.perf_counter()
    await core.receive("bench", [Event(event_id, event_id, msgspec.json.encode(inbound))])
    async with asyncio.timeout(PATIENCE_S):
        await core.settle()
    return port.first_shown_s[event_id] - started
