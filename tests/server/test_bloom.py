"""BLOOM through its adapter; test_span runs it through everything else beside the other families."""

from pathlib import Path

import pytest
import torch

from server.adapters import find_adapter
from server.block_loader import load_span
from server.span import SpanModel
from server.verify import verify_span
from swarm.checkpoint import open_checkpoint
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.devices import blocks_device
from tests.models import make_config, make_model, random_base
from tests.server.local_chain import MAX_LOGIT_DIFFERENCE, LocalChain, some_ids


def load(path: Path, span: Span, dtype: torch.dtype = torch.float32) -> SpanModel:
    loaded = load_span(open_checkpoint(str(path)), span, dtype=dtype, device=blocks_device())
    return SpanModel(loaded, span)


@pytest.mark.parametrize("num_heads", [2, 6, 8])
def test_alibi_is_exact_for_any_number_of_heads(num_heads: int, tmp_path: Path) -> None:
    path = make_model(tmp_path, "bloom", n_head=num_heads, hidden_size=num_heads * 8)
    chain = LocalChain(path, (0, 2, 6))
    sessions = [chain.open(), chain.open()]
    chain.step((sessions[0], some_ids(19, seed=1)), (sessions[1], some_ids(130, seed=2)))
    outputs = chain.step((sessions[0], some_ids(3, seed=3)), (sessions[1], some_ids(1, seed=4)))
    for session, logits in zip(sessions, outputs, strict=True):
        assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE


def test_the_residual_after_the_norm_is_honoured(tmp_path: Path) -> None:
    path = make_model(tmp_path, "bloom", apply_residual_connection_post_layernorm=True)
    verify_span(load(path, Span(2, 4)))


def test_restoring_an_adapted_block_gives_transformers_own() -> None:
    adapter = find_adapter("bloom")
    assert adapter is not None
    block = random_base(make_config("bloom")).get_submodule("h.0")
    before = block.self_attention
    adapter.adapt(block)
    assert block.self_attention is not before
    adapter.restore(block)
    assert block.self_attention is before


def test_a_setting_that_cannot_be_honoured_is_refused() -> None:
    base = random_base(make_config("bloom", pretraining_tp=2, slow_but_exact=True))
    with pytest.raises(ConfigError, match="slow_but_exact"):
        SpanModel(base, Span(0, 6))


def test_alibi_in_bf16_is_rounded_as_transformers_rounds_it(tmp_path: Path) -> None:
    verify_span(load(make_model(tmp_path, "bloom"), Span(0, 6), torch.bfloat16))
