"""Tokens are those of transformers' own `generate`, seed by seed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from swarm.errors import ConfigError, SwarmError
from swarm.sampling import Sampler
from swarm.sampling_params import SamplingParams
from tests.swarm.checkpoints import save_random_model

PROMPT = [5, 1, 7, 3, 98, 0, 12]
NUM_TOKENS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    folder: Path = tmp_path_factory.mktemp("model")
    model = save_random_model(folder)
    model.lm_head.weight.data.mul_(
        20
    )  # else all tokens are about equally likely, and cutting the tail does little
    return model


def generate(model: PreTrainedModel, seed: int, **arguments: Any) -> list[int]:
    """What unsplit transformers answers to PROMPT."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = torch.tensor([PROMPT])
        output = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NUM_TOKENS,
            eos_token_id=None,
            **arguments,
        )
    return list(output[0, len(PROMPT) :].tolist())


def sample(model: PreTrainedModel, params: SamplingParams) -> list[int]:
    """The same loop with our sampler."""
    sampler, ids = Sampler(params), list(PROMPT)
    while len(ids) < len(PROMPT) + NUM_TOKENS:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        ids.append(sampler.pick(logits, ids))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.5, "top_k": 5},
        {"top_p": 0.8},
        {"top_k": 1000, "top_p": 0.5},
        {"min_p": 0.05, "temperature": 2.0},
        {"repetition_penalty": 1.3},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.1},
    ],
    ids=str,
)
def test_a_seed_gives_the_tokens_of_transformers(
    model: PreTrainedModel, seed: int, arguments: dict[str, Any]
) -> None:
    expected = generate(model, seed, do_sample=True, **({"top_k": 0} | arguments))
    assert sample(model, SamplingParams(seed=seed, **arguments)) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_temperature_zero_is_transformers_greedy_search(model: PreTrainedModel, penalty: float) -> None:
    expected = generate(model, 0, do_sample=False, repetition_penalty=penalty)
    assert sample(model, SamplingParams(temperature=0, repetition_penalty=penalty)) == expected


def test_other_draws_in_the_process_change_nothing(model: PreTrainedModel) -> None:
    params = SamplingParams(seed=7)
    expected = sample(model, params)
    torch.rand(3)
    assert sample(model, params) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data())
@settings(max_examples=30)
def test_restoring_a_state_repeats_the_draws_after_it(lengths: list[int], data: st.DataObject) -> None:
    sampler = Sampler(SamplingParams(seed=3))
    logits = torch.zeros(50)
    states, picked = [], []
    for _ in range(sum(lengths) + 1):
        states.append(sampler.state())
        picked.append(sampler.pick(logits, []))
    position = data.draw(st.integers(0, len(picked) - 1))
    sampler.restore(states[position])
    assert [sampler.pick(logits, []) for _ in picked[position:]] == picked[position:]


def test_without_a_seed_one_is_made_up_and_told() -> None:
    first, second = Sampler(SamplingParams()), Sampler(SamplingParams())
    assert first.seed != second.seed
    repeated = Sampler(SamplingParams(seed=first.seed))
    logits = torch.zeros(1000)
    assert [repeated.pick(logits, []) for _ in range(5)] == [first.pick(logits, []) for _ in range(5)]


def test_the_logits_of_the_caller_are_left_alone() -> None:
    logits = torch.arange(10.0)
    Sampler(SamplingParams(temperature=0.5, top_k=2, repetition_penalty=2.0)).pick(logits, [9, 8])
    assert torch.equal(logits, torch.arange(10.0))


def test_logits_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(SwarmError, match="not a number"):
        Sampler(SamplingParams(temperature=0)).pick(torch.tensor([0.0, float("nan")]), [])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"temperature": -0.1}, "temperature must be from 0 to 10, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be a number from 0 to 10"),
        ({"temperature": "hot"}, "temperature must be a number from 0 to 10"),
        ({"top_p": 0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be from 0 to 1, not 1.1"),
        ({"min_p": True}, "min_p must be a number from 0 to 1"),
        ({"top_k": -1}, "top_k must be a whole number from 0"),
        ({"top_k": 2.5}, "top_k must be a whole number from 0"),
        ({"repetition_penalty": 0}, "repetition_penalty must be from 0.1 to 10, not 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**64}, "seed must be a whole number from 0"),
        ({"stop": ("",)}, "stop takes up to 16 strings"),
        ({"stop": ("x",) * 17}, "stop takes up to 16 strings"),
    ],
    ids=str,
)
def test_senseless_values_are_refused_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SamplingParams(**arguments)


def test_the_largest_seed_is_taken() -> None:
    assert Sampler(SamplingParams(seed=2**64 - 1)).pick(torch.zeros(5), []) < 5
