"""The pause after a server is killed against computing what was lost: mid model, 1,000 tokens of context.

A server for blocks 0 to 7 and two for blocks 8 to 15. The one in use of the two is killed in mid-answer; the
pause without the time until the loss is noticed is divided by the time that the lost blocks take for the same
context in this process, on one thread. `detection_beats`: heartbeats (1 s) until the loss is noticed;
`frozen_beats`: the same for servers that are stopped (SIGSTOP), whose streams stay open.
"""

import asyncio
import signal
import statistics
import tempfile
import time
from pathlib import Path

import torch

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import Service, Swarm, open_swarm
from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import KVPool
from server.replay_log import REPLAY_CHUNK_TOKENS
from server.span import SpanModel
from swarm.checkpoint import Checkpoint
from swarm.inference import InferenceSession
from swarm.notices import Notice
from swarm.say import say
from swarm.wire.blocks import Span

GOAL = 1.5
GOAL_BEATS = 2
HEARTBEAT_S = 1.0
CONTEXT_TOKENS = 1000
LOST = Span(8, 16)
PAIRS = 5
FREEZES = 3


async def measure(pairs: int = PAIRS) -> Found:
    """Kill a server in mid-answer, again and again; each time a new one takes its place."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_swarm(make_mid(Path(folder))) as swarm:
            first, *others = await swarm.start((0, 8), (8, 16), (8, 16))
            lost_blocks = _LostBlocks(swarm.checkpoint)
            times, beats, frozen_beats = [], [], []
            for number in range(pairs + FREEZES):
                say(f"[loss {number + 1} of {pairs + FREEZES}]")
                how = signal.SIGKILL if number < pairs else signal.SIGSTOP
                alone_s = await asyncio.to_thread(lost_blocks.prefill_s)
                lost, detection_s, pause_s = await _lose_one(swarm, first, others, how)
                if how is signal.SIGKILL:
                    times.append((alone_s, pause_s - detection_s))
                    beats.append(detection_s / HEARTBEAT_S)
                else:
                    frozen_beats.append(detection_s / HEARTBEAT_S)
                others = [other for other in others if other is not lost]
                others += await swarm.start((8, 16))
    prefill_s, rest_s = medians(times)
    noticed = max(statistics.median(beats), statistics.median(frozen_beats))
    return found(
        "failover",
        f"(pause after kill -9 - detection) / prefill of the lost 8 blocks, {CONTEXT_TOKENS} tokens, mid",
        times,
        GOAL,
        is_least=False,
        detection_beats=round(statistics.median(beats), 2),
        frozen_beats=round(statistics.median(frozen_beats), 2),
        recovery_s=round(rest_s, 3),
        prefill_s=round(prefill_s, 3),
        also={f"both beats <= {GOAL_BEATS}": noticed <= GOAL_BEATS},
    )


class _LostBlocks:
    """The blocks that are lost, in this process, to see what they cost alone."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = SpanModel(load_span(checkpoint, LOST), LOST)
        self._pool = KVPool(10_000_000)

    def prefill_s(self) -> float:
        """Seconds for the context, in parts as a replay has them."""
        torch.set_num_threads(1)
        cache = self._pool.open(LOST)
        hidden = torch.randn(CONTEXT_TOKENS, self._model.hidden_size, dtype=self._model.dtype)
        started = time.perf_counter()
        for part in torch.split(hidden, REPLAY_CHUNK_TOKENS):
            self._pool.begin_write(cache, cache.used, cache.used + len(part))
            self._model.run([Chunk(cache, LOST, cache.used, part)])
        seconds = time.perf_counter() - started
        self._pool.close(cache)
        return seconds


async def _lose_one(
    swarm: Swarm, first: Service, others: list[Service], how: signal.Signals
) -> tuple[Service, float, float]:
    """Send `how` to the server in use: it, seconds until that is noticed, and until the next token."""
    noticed: list[float] = []

    def note(notice: Notice) -> None:
        if notice.kind == "lost":
            noticed.append(time.perf_counter())

    async with swarm.session(first, *others) as session:
        await session.feed(some_ids(1, CONTEXT_TOKENS))
        await swarm.decode(session, 2)
        session.on_notice = note
        lost = _in_use(session, others)
        killed = time.perf_counter()
        lost.process.send_signal(how)
        await swarm.decode(session, 1)
        pause_s = time.perf_counter() - killed
        lost.kill()
        return lost, noticed[0] - killed, pause_s


def _in_use(session: InferenceSession, others: list[Service]) -> Service:
    peers = {hop.peer_id for hop in session.route}
    return next(other for other in others if other.peer_id in peers)
