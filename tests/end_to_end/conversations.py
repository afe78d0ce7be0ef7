"""A client in the test's own process, and what transformers would have answered."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from swarm.client import SwarmModel, join
from swarm.inference import InferenceSession
from swarm.sampling_params import SamplingParams
from tests.models import make_model
from tests.swarm.tokenizers_for_tests import byte_level

PROMPT = (7, 3, 11, 250, 42, 99, 180, 5, 77, 64, 31, 8, 120)


def make_talking_model(folder: Path, family: str = "llama") -> Path:
    """Write a model of six blocks with random weights, and a tokenizer; returns its directory."""
    tokenizer = byte_level()
    path = make_model(folder, family, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(path)
    return path


@asynccontextmanager
async def open_client(initial_peers: Sequence[str], model: Path) -> AsyncIterator[SwarmModel]:
    """Join as a client of that model."""
    async with join(initial_peers) as swarm:
        yield await swarm.load(str(model), dtype="float32")


@lru_cache
def expected_ids(model: Path, num_tokens: int, prompt: tuple[int, ...] = PROMPT) -> list[int]:
    """What transformers' generate answers, greedily, on the unsplit model."""
    whole: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([prompt])
    answer = whole.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0
    )[0, len(prompt) :].tolist()
    assert len(answer) == num_tokens, "the random model ends its answer early: take another prompt"
    return [int(token) for token in answer]


async def answer(
    model: SwarmModel,
    session: InferenceSession,
    num_tokens: int,
    on_token: Callable[[int], object] = lambda count: None,
    prompt: Sequence[int] = PROMPT,
) -> list[int]:
    """Generate greedily; `on_token` is told how many tokens there are already."""
    generation = model.generate(session, prompt, SamplingParams(temperature=0.0, max_new_tokens=num_tokens))
    async for _ in generation.tokens():
        on_token(len(generation.ids))
    return generation.ids
