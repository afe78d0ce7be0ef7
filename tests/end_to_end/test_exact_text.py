"""Words instead of tokens: seeds, stop strings and turns, over a swarm, are what transformers would give."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.client import SwarmModel
from swarm.sampling_params import SamplingParams
from swarm.text import load_tokenizer
from tests.end_to_end.conversations import make_talking_model
from tests.end_to_end.exact import FAMILIES, SmallModel, each_family, load_small_model, prompt
from tests.end_to_end.swarm import Offer, Swarm, open_swarm

OFFERS = [Offer(0, 2), Offer(2, 5, blocks_per_s=1e5), Offer(5, 6), Offer(2, 5, blocks_per_s=100.0)]
DRAWN: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "max_new_tokens": 24}
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=24)


@pytest.fixture(scope="session")
def small_talker(talking_model: Path) -> SmallModel:
    """The talking model and its reference."""
    return load_small_model(talking_model)


@asynccontextmanager
async def talking(small: SmallModel) -> AsyncIterator[tuple[Swarm, SwarmModel]]:
    """The model over three hops, the middle one with a spare."""
    tokenizer = load_tokenizer(small.checkpoint)
    async with open_swarm(small, *OFFERS) as swarm:
        client = await swarm.client()
        yield swarm, SwarmModel(small.checkpoint, small.ends, tokenizer, client.network)
        await swarm.check_clean()


@each_family(FAMILIES)
async def test_a_seed_gives_the_tokens_of_transformers_with_and_without_a_loss(
    family: str, tmp_path: Path
) -> None:
    small, ids = load_small_model(make_talking_model(tmp_path, family)), prompt(1, 9)
    async with talking(small) as (swarm, model):
        for seed, is_lost in ((1234, False), (77, True)):
            wanted = draw(model, small, ids, seed)
            assert wanted != small.greedy(ids, 24), "a draw that is none shows nothing"
            async with model.session() as session:
                generation = model.generate(session, ids, SamplingParams(seed=seed, **DRAWN))
                async for _ in generation.tokens():
                    if is_lost and len(generation.ids) == 11:
                        swarm.path(session)[1].kill()
                assert generation.ids == wanted
                assert (session.counters.rebinds > 1) == is_lost


def draw(model: SwarmModel, small: SmallModel, ids: Sequence[int], seed: int) -> list[int]:
    """What transformers' `generate` draws, to the end of its turn."""
    torch.manual_seed(seed)
    return small.generate(ids, do_sample=True, eos_token_id=sorted(model.tokenizer.eos_ids), **DRAWN)


async def test_an_answer_ends_before_its_stop_string(small_talker: SmallModel) -> None:
    async with talking(small_talker) as (_, model), model.session() as session:
        whole = model.stream(session, "What is Murmur?", GREEDY)
        pieces = "".join([piece async for piece in whole])
        assert pieces == whole.text
        stop = whole.text[len(whole.text) // 2 :][:3]
        cut = model.stream(
            session, "What is Murmur?", SamplingParams(temperature=0.0, max_new_tokens=24, stop=(stop,))
        )
        assert "".join([piece async for piece in cut]) == whole.text[: whole.text.index(stop)]
        assert cut.finish == "stop"


async def test_a_further_turn_sends_only_what_is_new(small_talker: SmallModel) -> None:
    messages = [{"role": "user", "content": "What is Murmur?"}]
    async with talking(small_talker) as (swarm, model), model.session() as session:
        answer = None
        for question in ("And then?", "Why, the dog?", ""):
            answer = model.answer(session, messages, answer, GREEDY)
            async for _ in answer:
                pass
            held = [*answer.prompt_ids, *answer.ids]
            assert answer.ids == small_talker.greedy(answer.prompt_ids, 24)[: len(answer.ids)]
            assert swarm.servers[0].executed_tokens == len(held) - 1, "every token once"
            messages += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": question},
            ]
        assert {server.recomputed_tokens for server in swarm.living} == {0}
