"""A turn after 1,000 tokens of history against the same turn without history: seconds, mid, 2 hops."""

import tempfile
import time
from pathlib import Path

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import Swarm, open_swarm
from swarm.inference import InferenceSession

GOAL = 1.2
HISTORY_TOKENS = 1000
QUESTION_TOKENS = 24
ANSWER_TOKENS = 24
PAIRS = 7


async def measure(pairs: int = PAIRS) -> Found:
    """Ask in turn at the beginning and after a long conversation."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_mid(Path(folder))) as swarm:
            servers = await swarm.start((0, 8), (8, 16))
            async with swarm.session(*servers) as fresh, swarm.session(*servers) as old:
                await old.feed(some_ids(1, HISTORY_TOKENS))
                for session in (fresh, old):
                    await _turn_s(swarm, session)
                times = [(await _turn_s(swarm, fresh), await _turn_s(swarm, old)) for _ in range(pairs)]
    alone_s, after_s = medians(times)
    return found(
        "turn",
        f"seconds of a turn ({QUESTION_TOKENS} tokens in, {ANSWER_TOKENS} out) after {HISTORY_TOKENS} tokens"
        " / without history, mid, bf16, 2 hops",
        times,
        GOAL,
        is_least=False,
        alone_s=round(alone_s, 3),
        after_history_s=round(after_s, 3),
    )


async def _turn_s(swarm: Swarm, session: InferenceSession) -> float:
    """One turn; then the session is rolled back, so that every turn starts alike."""
    before = session.position
    started = time.perf_counter()
    await session.feed(some_ids(2, QUESTION_TOKENS))
    await swarm.decode(session, ANSWER_TOKENS)
    seconds = time.perf_counter() - started
    session.rollback(before)
    return seconds
