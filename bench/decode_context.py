"""How much slower a decode step gets with context: time at 1,000 tokens / time at 10, goal <= 1.2.

A span of 16 blocks (hidden 1024, bf16, one thread) decodes two sessions in turn, one with a short past, one
with a long one. Reading the weights must dominate: a copy of old keys, or attention that expands them, shows
here first. Beside it, 8 sessions in one batch are compared with 8 one by one (`batch_ratio`).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from typing import Any

import torch
from transformers import AutoModel, LlamaConfig, PreTrainedModel

from server.attention import Chunk
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel, find_blocks
from swarm.checkpoint.skeleton import neutralize_ends
from swarm.wire.blocks import Span

NAME = "decode_context"
GOAL = 1.2
SHORT_TOKENS, LONG_TOKENS = 10, 1000
WARM_UP_STEPS = 5


def measure(pairs: int = 40, num_sessions: int = 8) -> dict[str, Any]:
    """Time decode steps in turn; return what `--json` prints. Ratios are medians of interleaved pairs."""
    torch.set_num_threads(1)
    bench = _Decoding(_mid_model())
    short, long = bench.open(SHORT_TOKENS), bench.open(LONG_TOKENS)
    many = [bench.open(SHORT_TOKENS + 3 * number) for number in range(num_sessions)]
    for _ in range(WARM_UP_STEPS):
        for caches in ([short], [long], many):
            bench.step_s(*caches)
    times = [(bench.step_s(short), bench.step_s(long), bench.step_s(*many)) for _ in range(pairs)]
    short_s, long_s, many_s = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "name": NAME,
        "ratio": round(statistics.median(far / near for near, far, _ in times), 3),
        "goal": GOAL,
        "pairs": pairs,
        "compared": f"decode step at {LONG_TOKENS} / at {SHORT_TOKENS} tokens, 16 blocks, bf16, one thread",
        "short_ms": round(short_s * 1e3, 2),
        "long_ms": round(long_s * 1e3, 2),
        "batch_sessions": num_sessions,
        "batch_ms": round(many_s * 1e3, 2),
        "batch_ratio": round(statistics.median(num_sessions * near / all_s for near, _, all_s in times), 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }


class _Decoding:
    """A span model and its sessions."""

    def __init__(self, model: SpanModel) -> None:
        self._model = model
        self._pool = KVPool(10_000_000)

    def open(self, tokens: int) -> SessionCache:
        cache = self._pool.open(self._model.span)
        self._run({cache: tokens})
        return cache

    def step_s(self, *caches: SessionCache) -> float:
        """Decode one token in each of `caches` as one batch; return the seconds it took."""
        started = time.perf_counter()
        self._run(dict.fromkeys(caches, 1))
        return time.perf_counter() - started

    def _run(self, works: dict[SessionCache, int]) -> None:
        chunks = []
        for cache, tokens in works.items():
            self._pool.begin_write(cache, cache.used, cache.used + tokens)
            hidden = torch.randn(tokens, self._model.hidden_size, dtype=self._model.dtype)
            chunks.append(Chunk(cache, cache.span, cache.used, hidden))
        self._model.run(chunks)


def _mid_model() -> SpanModel:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    )
    base = AutoModel.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    assert isinstance(base, PreTrainedModel)
    neutralize_ends(base, find_blocks(base))
    return SpanModel(base, Span(0, 16))


def main(arguments: list[str]) -> int:
    """Measure and print; return 0 if the goal is met, else 1."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{NAME}", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=40, help="interleaved pairs of steps (default: 40)")
    chosen = parser.parse_args(arguments)
    found = measure(chosen.pairs)
    text = json.dumps(found) if chosen.json else "\n".join(f"{key:15}{thing}" for key, thing in found.items())
    sys.stdout.write(text + "\n")
    return 0 if found["ratio"] <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
