"""What one more hop costs: milliseconds per token, tiny model, everything on one machine.

The same 8 blocks are decoded on one server and along four servers of 2 blocks, in turn: the difference is
three more hops. (Petals: about 10 ms a hop; a bare p2pd stream here: 0.25.)
"""

import statistics
import tempfile
from pathlib import Path

from bench.models import make_tiny, some_ids
from bench.report import Found, medians
from bench.swarms import open_swarm

GOAL_MS = 1.0
TOKENS = 32
MORE_HOPS = 3
PAIRS = 15


async def measure(pairs: int = PAIRS) -> Found:
    """Decode in turn over 1 and 4 hops."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_tiny(Path(folder))) as swarm:
            whole, *parts = await swarm.start((0, 8), (0, 2), (2, 4), (4, 6), (6, 8))
            async with swarm.session(whole) as one, swarm.session(*parts) as four:
                for session in (one, four):
                    await session.feed(some_ids(1, 64))
                    await swarm.decode(session, 8)
                times = [
                    (await swarm.decode(one, TOKENS), await swarm.decode(four, TOKENS)) for _ in range(pairs)
                ]
                links = four.counters.direct_links
    one_s, four_s = medians(times)
    each = [1e3 * (long - short) / TOKENS / MORE_HOPS for short, long in times]
    return Found(
        "hop",
        f"milliseconds per token that a hop adds: 4 hops - 1 hop, {TOKENS} tokens in a row, tiny, fp32",
        round(statistics.median(each), 3),
        GOAL_MS,
        pairs,
        is_least=False,
        unit=" ms",
        details={
            "one_hop_ms": round(1e3 * one_s / TOKENS, 3),
            "four_hops_ms": round(1e3 * four_s / TOKENS, 3),
            "direct_links": links,
        },
    )
