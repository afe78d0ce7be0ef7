"""Eight conversations at once against the same eight one after the other: tokens/s, mid model, 2 hops."""

import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import Swarm, open_swarm
from swarm.inference import InferenceSession

GOAL = 5.0
SESSIONS = 8
TOKENS = 16
PAIRS = 9


async def measure(pairs: int = PAIRS) -> Found:
    """Decode one by one and all together, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_mid(Path(folder))) as swarm, AsyncExitStack() as stack:
            servers = await swarm.start((0, 8), (8, 16))
            sessions = []
            for number in range(SESSIONS):
                session = await stack.enter_async_context(swarm.session(*servers))
                await session.feed(some_ids(number, 16 + 3 * number))
                sessions.append(session)
            await _together_s(swarm, sessions, 4)
            times = [
                (await _in_turn_s(swarm, sessions), await _together_s(swarm, sessions, TOKENS))
                for _ in range(pairs)
            ]
    number = SESSIONS * TOKENS
    speeds = [(number / in_turn_s, number / together_s) for in_turn_s, together_s in times]
    one, all_ = medians(speeds)
    return found(
        "batch",
        f"tokens/s of {SESSIONS} sessions at once / one at a time, mid, bf16, 2 hops",
        speeds,
        GOAL,
        one_at_a_time_tokens_per_s=round(one, 2),
        at_once_tokens_per_s=round(all_, 2),
    )


async def _in_turn_s(swarm: Swarm, sessions: list[InferenceSession]) -> float:
    return sum([await swarm.decode(session, TOKENS) for session in sessions])


async def _together_s(swarm: Swarm, sessions: list[InferenceSession], num_tokens: int) -> float:
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(swarm.decode(session, num_tokens))
    return time.perf_counter() - started
