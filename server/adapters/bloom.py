"""BLOOM: attention with ALiBi, outside transformers' attention interface.

ALiBi adds `slope of the head x position of the key` to a logit. Positions are absolute, as in stock BLOOM:
a shift cancels in the softmax, but not its rounding in bf16. The layer norm behind BLOOM's word embeddings
(`word_embeddings_layernorm`) belongs to the client's embedding end; a span starts with its first block.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.bloom.modeling_bloom import BloomAttention, _get_alibi_slopes, dropout_add

from server.adapters import Adapter
from server.attention import current_batch
from server.attention_kernels import Options
from server.attention_masks import RaggedMask
from swarm.errors import ConfigError


class RaggedBloomAttention(nn.Module):
    """Stock BLOOM attention around ours: same projections, same signature."""

    def __init__(self, stock: BloomAttention) -> None:
        super().__init__()
        if stock.pretraining_tp > 1 and stock.slow_but_exact:
            raise ConfigError("Murmur cannot honour `slow_but_exact`: set it to false in config.json")
        self.stock = stock

    def forward(
        self, hidden_states: Tensor, residual: Tensor, attention_mask: RaggedMask, layer_past: Any, **_: Any
    ) -> tuple[Tensor, None]:
        """Attend and add the residual, `[1, tokens, hidden]`."""
        stock = self.stock
        query, key, value = stock._reshape(stock.query_key_value(hidden_states))
        layer_past.update(key, value, stock.layer_idx)
        options = Options(stock.inv_norm_factor, key_bias=_alibi(stock.num_heads, query))
        context = current_batch().attend(query, key, value, attention_mask, options)
        output = stock.dense(context.reshape(hidden_states.shape))
        return dropout_add(output, residual, stock.hidden_dropout, self.training), None


def _alibi(num_heads: int, query: Tensor) -> Tensor:
    """Return slope x position for all keys of the batch `[heads, 1, keys]`, rounded as stock BLOOM does.

    Computed where `query` lies, as stock BLOOM does: a GPU's powers may differ from a CPU's in the last bit.
    """
    batch = current_batch()
    if "alibi" not in batch.notes:
        keys = torch.arange(max(chunk.end for chunk in batch.chunks), device=query.device)
        slopes = _get_alibi_slopes(num_heads, keys.device)
        batch.notes["alibi"] = (slopes[:, None, None] * keys).to(query.dtype)
    alibi: Tensor = batch.notes["alibi"]
    return alibi


def _adapt(block: nn.Module) -> None:
    stock = block.self_attention
    assert isinstance(stock, BloomAttention)
    block.self_attention = RaggedBloomAttention(stock)


def _restore(block: nn.Module) -> None:
    ragged = block.self_attention
    assert isinstance(ragged, RaggedBloomAttention)
    block.self_attention = ragged.stock


ADAPTER = Adapter(adapt=_adapt, restore=_restore, returns_tuple=True)
