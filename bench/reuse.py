"""A persona's prompt that is shared against one that is sent again: time to first token, mid, 2 hops."""

import tempfile
import time
from pathlib import Path

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import Service, Swarm, open_swarm
from swarm.inference import InferenceSession

GOAL = 10.0
PREFIX_TOKENS = 512
QUESTION_TOKENS = 8
PAIRS = 7


async def measure(pairs: int = PAIRS) -> Found:
    """Begin conversations in turn cold and as forks of a session that holds the prefix."""
    prefix = some_ids(1, PREFIX_TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_mid(Path(folder))) as swarm:
            servers = await swarm.start((0, 8), (8, 16))
            async with swarm.session(*servers) as persona:
                await persona.feed(prefix)
                await _forked_s(swarm, persona)
                times = [
                    (await _forked_s(swarm, persona), await _cold_s(swarm, servers, prefix))
                    for _ in range(pairs)
                ]
    forked_s, cold_s = medians(times)
    return found(
        "reuse",
        f"time to first token with {PREFIX_TOKENS} tokens of prefix, sent / forked, mid, bf16, 2 hops",
        times,
        GOAL,
        cold_ms=round(1e3 * cold_s, 1),
        forked_ms=round(1e3 * forked_s, 1),
    )


async def _forked_s(swarm: Swarm, persona: InferenceSession) -> float:
    started = time.perf_counter()
    async with persona.fork(PREFIX_TOKENS) as session:
        swarm.ends.logits(await session.feed(some_ids(2, QUESTION_TOKENS)))
        return time.perf_counter() - started


async def _cold_s(swarm: Swarm, servers: list[Service], prefix: list[int]) -> float:
    async with swarm.session(*servers) as session:
        await session.feed([])  # bound: routing is not what is compared
        started = time.perf_counter()
        swarm.ends.logits(await session.feed([*prefix, *some_ids(2, QUESTION_TOKENS)]))
        return time.perf_counter() - started
