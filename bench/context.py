"""Whether context costs a decode step more than attention must: what it adds to a step / to bare attention.

A span of 16 blocks (hidden 1024, bf16, one thread) decodes sessions with 100 to 4,000 tokens of context in
turn; beside it, torch's scaled_dot_product_attention runs alone on keys and values of the same sizes, once a
block. Both are compared with themselves at 100 tokens; goal <= 1.3. CPU time of the one thread.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import scaled_dot_product_attention

from bench.decode_context import Decoding, mid_model
from bench.models import MID
from bench.report import Found, found

GOAL = 1.3
PAIRS = 25
WARM_UP_STEPS = 3
NUMBERS_OF_KEYS = (100, 500, 1000, 2000, 4000)
BLOCKS = MID["num_hidden_layers"]
KV_HEADS = MID["num_key_value_heads"]
GROUP = MID["num_attention_heads"] // KV_HEADS
HEAD_DIM = MID["hidden_size"] // MID["num_attention_heads"]

Work = Callable[[], object]


async def measure(pairs: int = PAIRS) -> Found:
    """Time steps and bare attention in turn."""
    return await asyncio.to_thread(_measure, pairs)


@torch.inference_mode()
def _measure(pairs: int) -> Found:
    torch.set_num_threads(1)
    decoding = Decoding(mid_model())
    caches = [decoding.open_with(number) for number in NUMBERS_OF_KEYS]
    steps: list[Work] = [partial(decoding.step_s, cache) for cache in caches]
    bare = [_attention(number) for number in NUMBERS_OF_KEYS]
    rounds = [[_cpu_s(work) for work in steps + bare] for _ in range(WARM_UP_STEPS + pairs)][WARM_UP_STEPS:]
    return found(
        "context",
        f"what {NUMBERS_OF_KEYS[-1]} instead of {NUMBERS_OF_KEYS[0]} keys add to a step / to bare attention",
        [(row[-1] - row[len(steps)], row[len(steps) - 1] - row[0]) for row in rounds],
        GOAL,
        is_least=False,
        keys=list(NUMBERS_OF_KEYS),
        step_ms=_medians_ms([row[: len(steps)] for row in rounds]),
        attention_ms=_medians_ms([row[len(steps) :] for row in rounds]),
    )


def _attention(num_keys: int) -> Work:
    """Attention of one row of all heads in every block, to tensors that nothing else reads."""
    query = torch.randn(1, KV_HEADS, GROUP, HEAD_DIM, dtype=torch.bfloat16)
    pairs = [
        (
            torch.randn(1, KV_HEADS, num_keys, HEAD_DIM, dtype=torch.bfloat16),
            torch.randn(1, KV_HEADS, num_keys, HEAD_DIM, dtype=torch.bfloat16),
        )
        for _ in range(BLOCKS)
    ]
    return lambda: [scaled_dot_product_attention(query, keys, values) for keys, values in pairs]


def _cpu_s(work: Work) -> float:
    before = time.thread_time()
    work()
    return time.thread_time() - before


def _medians_ms(rows: list[list[float]]) -> list[float]:
    return [round(1e3 * statistics.median(column), 2) for column in zip(*rows, strict=True)]
