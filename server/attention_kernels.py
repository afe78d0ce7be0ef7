"""Attention of one session's rows against its keys, on plain tensors.

The keys may come in two parts (a shared prefix and the session's own), whose results are joined by their
log-sum-exp. Heads that share a key head are folded: into the query axis when one token decodes (12 times
faster on a CPU than `enable_gqa=True` at 1,000 tokens), else into a broadcast axis that copies no keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from server.kv_extents import Pair

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """What a layer asks of attention beside the mask.

    `sinks` [heads] are logits of a key that every row sees and whose value is zero. `key_bias`
    [heads, 1, keys] is added to the logits. `softcap` c turns a logit x into c * tanh(x / c).
    """

    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None
    key_bias: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Visible:
    """Which keys some rows see: none before `first`, then what `added` [rows, keys - first] says.

    `added` holds 0 or the lowest number of the dtype; None means all, or the causal triangle if `is_causal`.
    """

    first: int
    added: Tensor | None
    is_causal: bool


def attend_rows(query: Tensor, parts: tuple[Pair, ...], visible: Visible, options: Options) -> Tensor:
    """Return `[tokens, heads, value_dim]` for `query` [heads, tokens, dim] over keys that lie in `parts`."""
    heads, tokens, dim = query.shape
    kv_heads = parts[0][0].shape[0]
    group = heads // kv_heads
    folds = tokens == 1 and options.key_bias is None and options.softcap is None
    shape = (1, kv_heads, group, dim) if folds else (kv_heads, group, tokens, dim)
    folded = query.reshape(shape)
    if len(parts) == 1 and options.sinks is None and options.softcap is None:
        output, _ = _attend_part(folded, parts[0], 0, visible, options, wants_lse=False)
    else:
        output = _attend_parts(folded, parts, visible, options)
    return output.reshape(heads, tokens, -1).transpose(0, 1)


def _attend_parts(query: Tensor, parts: tuple[Pair, ...], visible: Visible, options: Options) -> Tensor:
    """Attend to each part and join the results: weights are the shares of the softmax's denominators."""
    output, lse, start = None, None, 0
    for part in parts:
        last = start + part[0].shape[1]
        if last > max(visible.first, start):
            part_output, part_lse = _attend_part(query, part, start, visible, options, wants_lse=True)
            assert part_lse is not None
            if output is None or lse is None:
                output, lse = part_output.float(), part_lse
            else:
                share = torch.sigmoid(part_lse - lse).unsqueeze(-1)
                output = torch.lerp(output, part_output.float(), share)
                lse = torch.logaddexp(lse, part_lse)
        start = last
    assert output is not None
    assert lse is not None
    if options.sinks is not None:
        sinks = options.sinks.float().view(*_head_axes(query, options.sinks))
        output = output * torch.sigmoid(lse - sinks).unsqueeze(-1)
    return output.to(query.dtype)


def _head_axes(query: Tensor, per_head: Tensor) -> tuple[int, ...]:
    """Return the shape that lays a value per head beside log-sum-exps of `query`, however it is folded."""
    if query.shape[0] == 1 and query.shape[1] * query.shape[2] == per_head.numel():
        return (1, query.shape[1], query.shape[2])
    return (query.shape[0], query.shape[1], 1)


def _attend_part(
    query: Tensor, part: Pair, start: int, visible: Visible, options: Options, *, wants_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attend to keys at positions from `start` on; return the output and, if wanted, its log-sum-exp."""
    skipped = max(0, visible.first - start)
    keys, values = part[0][:, skipped:], part[1][:, skipped:]
    first, last = start + skipped, start + part[0].shape[1]
    added = None if visible.added is None else visible.added[:, first - visible.first : last - visible.first]
    is_causal = visible.is_causal and start == 0
    if query.shape[0] == 1 and query.shape[1] == keys.shape[0]:
        keys, values = keys[None], values[None]
    else:
        keys = keys[:, None].expand(-1, query.shape[1], -1, -1)
        values = values[:, None].expand(-1, query.shape[1], -1, -1)
    if options.key_bias is not None:
        bias = options.key_bias[..., first:last].view(*query.shape[:2], 1, -1)
        added = _causal(added, is_causal, query, keys)
        added, is_causal = bias if added is None else bias + added, False
    if options.softcap is not None or (wants_lse and keys.shape[-1] != values.shape[-1]):
        return _attend_plainly(query, (keys, values), _causal(added, is_causal, query, keys), options)
    if wants_lse:
        if added is not None and added.dim() == 2:
            added = added[None, None]
        output, lse = _flash(query, keys, values, 0.0, is_causal, attn_mask=added, scale=options.scaling)
        return output, lse
    output = F.scaled_dot_product_attention(
        query, keys, values, attn_mask=added, is_causal=is_causal, scale=options.scaling
    )
    return output, None


def _causal(added: Tensor | None, is_causal: bool, query: Tensor, keys: Tensor) -> Tensor | None:
    """Return `added`, or what `is_causal` stands for: row i sees keys 0 to i."""
    if not is_causal:
        return added
    triangle = torch.full((query.shape[2], keys.shape[2]), torch.finfo(query.dtype).min, dtype=query.dtype)
    return triangle.triu_(1)


def _attend_plainly(query: Tensor, part: Pair, added: Tensor | None, options: Options) -> Pair:
    """Attend step by step in fp32, for what no kernel does: capped logits, values of another width."""
    logits = (query @ part[0].transpose(-1, -2)).float() * options.scaling
    if options.softcap is not None:
        logits = torch.tanh(logits / options.softcap) * options.softcap
    if added is not None:
        logits = logits + added
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.unsqueeze(-1))
    return weights.to(query.dtype) @ part[1], lse
