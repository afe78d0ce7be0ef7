"""Falcon through its adapter; test_families runs it through everything else beside the other families."""

from pathlib import Path
from typing import Any

import pytest
import torch

from server.adapters import find_adapter
from server.block_loader import block_size, load_span
from server.span import SpanModel
from server.verify import verify_span
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span
from tests.devices import blocks_device
from tests.models import make_config, make_model, random_base
from tests.server.local_chain import MAX_LOGIT_DIFFERENCE, LocalChain, some_ids

KV_HEADS = {"falcon": 2, "falcon-multi-query": 1, "falcon-alibi": 8}
HEAD_DIM = 8


def load(path: Path, dtype: torch.dtype = torch.float32) -> SpanModel:
    loaded = load_span(open_checkpoint(str(path)), Span(0, 6), dtype=dtype, device=blocks_device())
    return SpanModel(loaded, Span(0, 6))


@pytest.mark.parametrize("num_heads", [2, 6, 8])
def test_alibi_is_exact_for_any_number_of_heads(num_heads: int, tmp_path: Path) -> None:
    path = make_model(tmp_path, "falcon-alibi", num_attention_heads=num_heads, hidden_size=num_heads * 8)
    chain = LocalChain(path, (0, 2, 6))
    sessions = [chain.open(), chain.open()]
    chain.step((sessions[0], some_ids(19, seed=1)), (sessions[1], some_ids(130, seed=2)))
    outputs = chain.step((sessions[0], some_ids(3, seed=3)), (sessions[1], some_ids(1, seed=4)))
    for session, logits in zip(sessions, outputs, strict=True):
        assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("falcon", {"num_ln_in_parallel_attn": 1}),
        ("falcon-multi-query", {"parallel_attn": False}),
        ("falcon-multi-query", {"alibi": True}),
        ("falcon-alibi", {"parallel_attn": True, "alibi": False}),
        ("falcon-alibi", {"new_decoder_architecture": True, "num_kv_heads": 4, "parallel_attn": True}),
    ],
)
def test_other_ways_to_build_a_block_are_exact(
    family: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    verify_span(load(make_model(tmp_path, family, **overrides)))


@pytest.mark.parametrize("family", KV_HEADS)
def test_restoring_an_adapted_block_gives_transformers_own(family: str) -> None:
    adapter = find_adapter("falcon")
    assert adapter is not None
    block = random_base(make_config(family)).get_submodule("h.0")
    before = block.self_attention
    adapter.adapt(block)
    assert block.self_attention is not before
    adapter.restore(block)
    assert block.self_attention is before


@pytest.mark.parametrize("family", KV_HEADS)
def test_bf16_is_rounded_as_transformers_rounds_it(family: str, tmp_path: Path) -> None:
    verify_span(load(make_model(tmp_path, family), torch.bfloat16))


@pytest.mark.parametrize("family", KV_HEADS)
def test_keys_and_values_are_kept_once_per_head_that_shares_them(family: str, tmp_path: Path) -> None:
    path = make_model(tmp_path, family)
    layout = load(path).kv_layout()
    shape = (KV_HEADS[family], 1, HEAD_DIM)
    assert [(keys.shape, values.shape) for keys, values in layout] == [(shape, shape)] * 6
    kept = block_size(open_checkpoint(str(path)), torch.float32).kv_bytes_per_token
    assert kept == 2 * KV_HEADS[family] * HEAD_DIM * 4
