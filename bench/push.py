"""Server to server against through the client: tokens/s over 3 hops at 100 ms round trips, tiny model.

Every server is reached over a link of 50 ms each way. With N hops a token takes N + 1 links along the chain,
and 2N if the client carries every one: at best 1.5 times as many with 3 hops.
"""

import tempfile
from pathlib import Path

from bench.models import make_tiny, some_ids
from bench.report import Found, found, medians
from bench.swarms import open_swarm

GOAL = 1.4
DELAY_S = 0.05
TOKENS = 6
PAIRS = 9


async def measure(pairs: int = PAIRS) -> Found:
    """Decode in turn through the client and along the chain."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_tiny(Path(folder))) as swarm:
            servers = await swarm.start((0, 3), (3, 6), (6, 8), delay_s=DELAY_S)
            async with swarm.session(*servers) as chain, swarm.session(*servers, is_relayed=True) as relay:
                for session in (chain, relay):
                    await session.feed(some_ids(1, 16))
                    await swarm.decode(session, 3)
                times = [
                    (await swarm.decode(relay, TOKENS), await swarm.decode(chain, TOKENS))
                    for _ in range(pairs)
                ]
                relayed, direct = relay.counters.relayed_frames, chain.counters.direct_links
    speeds = [(TOKENS / relay_s, TOKENS / chain_s) for relay_s, chain_s in times]
    through_client, along_chain = medians(speeds)
    return found(
        "push",
        "tokens/s along the chain / carried by the client, tiny, 3 hops, 100 ms round trips (limit: 1.5)",
        speeds,
        GOAL,
        through_client_tokens_per_s=round(through_client, 2),
        along_chain_tokens_per_s=round(along_chain, 2),
        relayed_frames=relayed,
        direct_links=direct,
    )
