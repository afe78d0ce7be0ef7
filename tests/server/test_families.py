"""Further families, beyond those of test_span: each through all of its tests of a chain.

Local blocks forget what their windows have left behind, as on a server.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaAttention

from server.attention import ATTENTION
from server.span import SpanModel, find_blocks
from server.verify import verify_span
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.models import FURTHER_FAMILIES, make_config, make_model, random_base
from tests.server.local_chain import LocalChain, some_ids
from tests.server.test_span import (
    test_a_prompt_at_once_equals_the_unsplit_model,
    test_a_step_at_a_lower_position_rolls_back,
    test_chunks_of_a_prompt_equal_the_whole,
    test_decoding_equals_prefilling,
    test_forks_and_a_parent_rolled_back_below_them_stay_exact,
    test_forks_that_decode_together_equal_each_alone,
    test_ragged_batches_of_prompts_chunks_and_decodes_equal_each_session_alone,
)

__all__ = [
    "test_a_prompt_at_once_equals_the_unsplit_model",
    "test_a_step_at_a_lower_position_rolls_back",
    "test_chunks_of_a_prompt_equal_the_whole",
    "test_decoding_equals_prefilling",
    "test_forks_and_a_parent_rolled_back_below_them_stay_exact",
    "test_forks_that_decode_together_equal_each_alone",
    "test_ragged_batches_of_prompts_chunks_and_decodes_equal_each_session_alone",
]
ROOT = Path(__file__).parents[2]
ROLLBACK_TOKENS = 64
MIN_GAP = 1e-4


SLOW = {"phi3", "olmo2", "granite", "glm4-moe", "gpt-neox", "gpt2"}  # nothing that no other family has


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FURTHER_FAMILIES],
)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    path = make_model(tmp_path_factory.mktemp("models"), request.param)
    return LocalChain(path, (0, 1, 4, 6), rollback_tokens=ROLLBACK_TOKENS, min_gap=MIN_GAP)


def test_the_start_up_comparison_accepts_every_span(chain: LocalChain) -> None:
    for model in chain.models:
        verify_span(model)


def test_what_a_row_sees_decides_its_answer(chain: LocalChain) -> None:
    ids = some_ids(40, seed=20)
    before = chain.expected(ids, 1)
    for place in (33, 38):
        other = [*ids[:place], ids[place] + 1, *ids[place + 1 :]]
        assert (chain.expected(other, 1) - before).abs().max() > 0.05


@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [
        ("hunyuan_v1_dense", {"head_dim": 16}),
        ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
        ("smollm3", {"no_rope_layers": [1, 1, 0] * 2}),
    ],
)
def test_a_family_that_uses_the_interfaces_needs_its_configuration_alone(
    model_type: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    ours = [file.read_text() for folder in ("server", "swarm") for file in (ROOT / folder).rglob("*.py")]
    assert not any(model_type.partition("_")[0] in source for source in ours)
    chain = LocalChain(make_model(tmp_path, model_type, **overrides), (0, 1, 4, 6), min_gap=MIN_GAP)
    for model in chain.models:
        verify_span(model)
    test_ragged_batches_of_prompts_chunks_and_decodes_equal_each_session_alone(chain)
    test_forks_and_a_parent_rolled_back_below_them_stay_exact(chain)


def test_a_family_that_attends_to_what_comes_later_is_refused_in_one_sentence() -> None:
    base = random_base(make_config("bert", is_decoder=False))
    with pytest.raises(ConfigError, match="block 0 of this bert model would answer differently") as refusal:
        verify_span(SpanModel(base, Span(0, 6)))
    assert "\n" not in str(refusal.value)


class SecretiveAttention(LlamaAttention):
    """What a family of tomorrow may do: attend as it likes where it should ask the interface."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        is_ours = self.config._attn_implementation == ATTENTION
        return super().forward(hidden_states * (1.0 if is_ours else 0.9), *args, **kwargs)


def test_attention_that_is_silently_another_here_is_refused_in_one_sentence() -> None:
    base = random_base(make_config("llama"))
    for block in find_blocks(base):
        block.self_attn.__class__ = SecretiveAttention
    with pytest.raises(ConfigError, match="would answer differently here than in transformers") as refusal:
        verify_span(SpanModel(base, Span(0, 6)))
    assert "\n" not in str(refusal.value)
