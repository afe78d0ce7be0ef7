"""One conversation over two servers against unsplit transformers in this process: tokens/s, mid model.

Reading the weights dominates both. Each computes on one thread; servers are idle while transformers runs.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import open_swarm

GOAL = 0.95
TOKENS = 24
PROMPT_TOKENS = 32
PAIRS = 9


async def measure(pairs: int = PAIRS) -> Found:
    """Decode in turn here and over two hops."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_mid(Path(folder))
        unsplit = _Unsplit(model)
        async with open_swarm(model) as swarm:
            servers = await swarm.start((0, 8), (8, 16))
            async with swarm.session(*servers) as session:
                await session.feed(some_ids(1, PROMPT_TOKENS))
                await swarm.decode(session, 4)
                unsplit.decode(4)
                speeds = []
                for _ in range(pairs):
                    session.rollback(PROMPT_TOKENS)
                    here_s = await asyncio.to_thread(unsplit.decode, TOKENS)
                    there_s = await swarm.decode(session, TOKENS)
                    speeds.append((TOKENS / here_s, TOKENS / there_s))
    here, there = medians(speeds)
    return found(
        "decode",
        f"tokens/s over 2 hops / unsplit transformers generate, mid, bf16, {PROMPT_TOKENS} tokens of prompt",
        speeds,
        GOAL,
        unsplit_tokens_per_s=round(here, 2),
        swarm_tokens_per_s=round(there, 2),
    )


class _Unsplit:
    """transformers' own generate, on one thread."""

    def __init__(self, path: Path) -> None:
        torch.set_num_threads(1)
        self._model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
        self._ids = torch.tensor([some_ids(1, PROMPT_TOKENS)])

    def decode(self, num_tokens: int) -> float:
        """Seconds for `num_tokens` tokens after the first one, whose time goes to the prompt."""
        torch.set_num_threads(1)
        first_s = self._generate(1)
        return self._generate(1 + num_tokens) - first_s

    def _generate(self, num_tokens: int) -> float:
        started = time.perf_counter()
        self._model.generate(
            self._ids, max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        return time.perf_counter() - started
