"""Falcon: both forms of attention (rotary, and ALiBi as in Falcon-RW), outside transformers' interface.

Keys and values that several query heads share are kept once; stock Falcon keeps a copy for each head. ALiBi
follows transformers' default attention ("sdpa"), which adds it to a logit once: "eager" adds it twice.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.falcon.modeling_falcon import (
    FalconAttention,
    apply_rotary_pos_emb,
    build_alibi_tensor,
)

from server.adapters import Adapter
from server.attention import current_batch
from server.attention_kernels import Options
from server.attention_masks import RaggedMask


class RaggedFalconAttention(nn.Module):
    """Stock Falcon attention around ours: same projections, same signature."""

    def __init__(self, stock: FalconAttention) -> None:
        super().__init__()
        self.stock = stock

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: RaggedMask,
        layer_past: Any,
        position_embeddings: tuple[Tensor, Tensor],
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Attend, `[1, tokens, hidden]`."""
        stock = self.stock
        query, key, value = _heads(stock, stock.query_key_value(hidden_states))
        bias = None
        if stock.config.alibi:
            bias = _alibi(stock, query)
        else:
            query, key = apply_rotary_pos_emb(query, key, *position_embeddings)  # type: ignore[no-untyped-call]
        layer_past.update(key, value, stock.layer_idx)
        options = Options(stock.inv_norm_factor, key_bias=bias)
        context = current_batch().attend(query, key, value, attention_mask, options)
        return stock.dense(context.reshape(hidden_states.shape)), None


def _kv_heads(config: PretrainedConfig) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _heads(stock: FalconAttention, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take `[1, tokens, (queries of a group, its key, its value) for each group]` apart, heads first."""
    groups = _kv_heads(stock.config)
    split = fused.view(*fused.shape[:2], groups, -1, stock.head_dim)
    query, key, value = split[:, :, :, :-2].flatten(2, 3), split[:, :, :, -2], split[:, :, :, -1]
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _alibi(stock: FalconAttention, query: Tensor) -> Tensor:
    """Return what is added to the logits of all keys, `[heads, 1, keys]`, rounded as stock Falcon does."""
    batch = current_batch()
    if "alibi" not in batch.notes:
        num_keys = max(chunk.end for chunk in batch.chunks)
        ones = torch.ones((1, num_keys), dtype=torch.long, device=query.device)
        alibi = build_alibi_tensor(ones, stock.num_heads, query.dtype)
        batch.notes["alibi"] = alibi / math.sqrt(stock.head_dim)
    found: Tensor = batch.notes["alibi"]
    return found


def _adapt(block: nn.Module) -> None:
    stock = block.self_attention
    assert isinstance(stock, FalconAttention)
    block.self_attention = RaggedFalconAttention(stock)


def _restore(block: nn.Module) -> None:
    ragged = block.self_attention
    assert isinstance(ragged, RaggedFalconAttention)
    block.self_attention = ragged.stock


ADAPTER = Adapter(adapt=_adapt, restore=_restore, returns_tuple=True, stock_attention="sdpa")
