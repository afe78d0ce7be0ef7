"""How much slower a decode step gets with context: time at 1,000 tokens / time at 10, goal <= 1.2.

A span of 16 blocks (hidden 1024, bf16, one thread) decodes two sessions in turn, one with a short past, one
with a long one. Reading the weights must dominate: a copy of old keys, or attention that expands them, shows
here first. Beside it, 8 sessions in one batch are compared with 8 one by one (`batch_ratio`).
"""

import asyncio
import statistics
import time

import torch
from transformers import AutoModel, LlamaConfig, PreTrainedModel

from bench.models import MID
from bench.report import Found, found
from server.attention import Chunk
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel, find_blocks
from swarm.checkpoint.skeleton import neutralize_ends
from swarm.wire.blocks import Span

GOAL = 1.2
PAIRS = 40
SESSIONS = 8
SHORT_TOKENS, LONG_TOKENS = 10, 1000
WARM_UP_STEPS = 5


async def measure(pairs: int = PAIRS) -> Found:
    """Time decode steps in turn."""
    return await asyncio.to_thread(_measure, pairs)


def _measure(pairs: int) -> Found:
    torch.set_num_threads(1)
    bench = Decoding(mid_model())
    short, long = bench.open(SHORT_TOKENS), bench.open(LONG_TOKENS)
    many = [bench.open(SHORT_TOKENS + 3 * number) for number in range(SESSIONS)]
    for _ in range(WARM_UP_STEPS):
        for caches in ([short], [long], many):
            bench.step_s(*caches)
    times = [(bench.step_s(short), bench.step_s(long), bench.step_s(*many)) for _ in range(pairs)]
    short_s, long_s, many_s = (statistics.median(column) for column in zip(*times, strict=True))
    return found(
        "decode-context",
        f"decode step at {LONG_TOKENS} / at {SHORT_TOKENS} tokens, 16 blocks, bf16, one thread",
        [(near, far) for near, far, _ in times],
        GOAL,
        is_least=False,
        short_ms=round(short_s * 1e3, 2),
        long_ms=round(long_s * 1e3, 2),
        batch_sessions=SESSIONS,
        batch_ms=round(many_s * 1e3, 2),
        batch_ratio=round(statistics.median(SESSIONS * near / all_s for near, _, all_s in times), 2),
    )


class Decoding:
    """A span model and its sessions."""

    def __init__(self, model: SpanModel) -> None:
        self._model = model
        self._pool = KVPool(10_000_000)

    def open(self, tokens: int) -> SessionCache:
        """A session with a prompt of `tokens`."""
        cache = self._pool.open(self._model.span)
        self._model.run(self._chunks({cache: tokens}))
        return cache

    def open_with(self, tokens: int) -> SessionCache:
        """A session that has cached `tokens` of noise, without the time that a prompt takes."""
        cache = self._pool.open(self._model.span)
        self._pool.begin_write(cache, 0, tokens)
        for layer, (keys, values) in enumerate(self._model.kv_layout()):
            noise = [torch.randn_like(half.expand(-1, tokens, -1)) for half in (keys, values)]
            cache.write(layer, 0, noise[0], noise[1])
        cache.used = tokens
        return cache

    def step_s(self, *caches: SessionCache) -> float:
        """Decode one token in each of `caches` as one batch; return the seconds it took."""
        return self._run_s(dict.fromkeys(caches, 1))

    def prompt_s(self, tokens: int) -> float:
        """Read a prompt of `tokens` at once, in a session that ends with it; return the seconds it took."""
        cache = self._pool.open(self._model.span)
        seconds = self._run_s({cache: tokens})
        self._pool.close(cache)
        return seconds

    def _run_s(self, works: dict[SessionCache, int]) -> float:
        chunks = self._chunks(works)
        started = time.perf_counter()
        self._model.run(chunks)
        return time.perf_counter() - started

    def _chunks(self, works: dict[SessionCache, int]) -> list[Chunk]:
        chunks = []
        for cache, tokens in works.items():
            self._pool.begin_write(cache, cache.used, cache.used + tokens)
            hidden = torch.randn(tokens, self._model.hidden_size, dtype=self._model.dtype)
            chunks.append(Chunk(cache, cache.span, cache.used, hidden))
        return chunks


def mid_model() -> SpanModel:
    """All 16 blocks of *mid*, in bf16."""
    config = LlamaConfig(vocab_size=32, max_position_embeddings=8192, **MID)
    base = AutoModel.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    assert isinstance(base, PreTrainedModel)
    neutralize_ends(base, find_blocks(base))
    return SpanModel(base, Span(0, 16))
