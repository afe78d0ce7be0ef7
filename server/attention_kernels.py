"""Attention of sessions' rows against their keys, on plain tensors.

The keys may come in two parts (a shared prefix and the session's own), whose results are joined by their
log-sum-exp; sessions that decode behind the same prefix attend to it together. Only the CPU's kernel hands
out that sum, so on any other device the parts are first copied into one. Heads that share a key head
are folded: into the query axis when one token decodes (12 times faster on a CPU than `enable_gqa=True` at
1,000 tokens), else into a broadcast axis that copies no keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from server.kv_extents import Pair

# cuDNN's attention makes a plan for each new length: on an H100, 11 ms for every session, block and token.
torch.backends.cuda.enable_cudnn_sdp(False)

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


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What one session asks: `query` [heads, tokens, dim] over keys that lie in `parts`, in order.

    The first of them is that of position `first`; those before are not held any more, and nobody sees them.
    """

    query: Tensor
    parts: tuple[Pair, ...]
    visible: Visible
    first: int = 0


def attend_sessions(sessions: Sequence[Rows], options: Options) -> list[Tensor]:
    """Return `[tokens, heads, value_dim]` for each of `sessions`."""
    can_share = len(sessions) > 1 and sessions[0].query.is_cpu
    prefixes = _attend_shared_prefixes(sessions, options) if can_share else {}
    return [attend_rows(rows, options, prefixes.get(place)) for place, rows in enumerate(sessions)]


def _attend_shared_prefixes(sessions: Sequence[Rows], options: Options) -> dict[int, Pair]:
    """Attend once to each prefix that several sessions decode behind; outputs and log-sum-exps by place.

    Eight rows over 512 keys take 1.3 times as long as one.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, rows in enumerate(sessions):
        sees_all = rows.visible.added is None and not rows.visible.first
        if rows.query.shape[1] == 1 and len(rows.parts) == 2 and sees_all and options.key_bias is None:
            keys = rows.parts[0][0]
            groups.setdefault((keys.data_ptr(), keys.shape[1]), []).append(place)
    found: dict[int, Pair] = {}
    for places in groups.values():
        if len(places) == 1:
            continue
        prefix = sessions[places[0]].parts[0]
        kv_heads, dim = prefix[0].shape[0], prefix[0].shape[2]
        query = torch.cat([sessions[place].query.reshape(1, kv_heads, -1, dim) for place in places], 2)
        everything = Visible(0, None, is_causal=False)
        output, lse = _attend_part(query, prefix, 0, everything, options, wants_lse=True)
        assert lse is not None
        shares = zip(output.chunk(len(places), 2), lse.chunk(len(places), 2), strict=True)
        found.update(zip(places, shares, strict=True))
    return found


def attend_rows(rows: Rows, options: Options, prefix: Pair | None = None) -> Tensor:
    """Return `[tokens, heads, value_dim]`; `prefix` is what attention to the first part gave, if known."""
    rows = rows if rows.query.is_cpu else _in_one_part(rows)
    query, parts = rows.query, rows.parts
    heads, tokens, dim = query.shape
    kv_heads = parts[0][0].shape[0]
    group = heads // kv_heads
    is_folded = tokens == 1
    query = query.reshape((1, kv_heads, group, dim) if is_folded else (kv_heads, group, tokens, dim))
    if is_folded and group == 1 and query.dtype != torch.float32:
        query = query.expand(-1, -1, 2, -1)  # the kernel takes 758 us for one row, 342 for two (1,000 keys)
    if len(parts) == 1 and options.sinks is None:
        output, _ = _attend_part(query, parts[0], rows.first, rows.visible, options, wants_lse=False)
    else:
        output = _attend_parts(query, rows, options, prefix)
    if is_folded:
        output = output[:, :, :group]
    return output.reshape(heads, tokens, -1).transpose(0, 1)


def _in_one_part(rows: Rows) -> Rows:
    if len(rows.parts) == 1:
        return rows
    keys, values = (torch.cat(halves, 1) for halves in zip(*rows.parts, strict=True))
    return Rows(rows.query, ((keys, values),), rows.visible, rows.first)


def _attend_parts(query: Tensor, rows: Rows, options: Options, prefix: Pair | None) -> Tensor:
    """Attend to each part and join the results: weights are the shares of the softmax's denominators."""
    start = rows.first
    output, lse, start = (None, None, start) if prefix is None else (*prefix, rows.parts[0][0].shape[1])
    for part in rows.parts if prefix is None else rows.parts[1:]:
        last = start + part[0].shape[1]
        if last > max(rows.visible.first, start):
            part_output, part_lse = _attend_part(query, part, start, rows.visible, options, wants_lse=True)
            assert part_lse is not None
            if output is None or lse is None:
                output, lse = part_output, part_lse
            else:
                share = torch.sigmoid(part_lse - lse).unsqueeze(-1)
                output = torch.lerp(output.float(), part_output.float(), share)
                lse = torch.logaddexp(lse, part_lse)
        start = last
    assert output is not None
    assert lse is not None
    if options.sinks is not None:
        sinks = _per_head(options.sinks.float()[:, None, None], query, rows.parts[0][0])
        output = output * torch.sigmoid(lse.unsqueeze(-1) - sinks)
    return output.to(query.dtype)


def _attend_part(
    query: Tensor, part: Pair, start: int, visible: Visible, options: Options, *, wants_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Attend to keys at positions from `start` on; return the output and, if wanted, its log-sum-exp."""
    first, last = max(start, visible.first), start + part[0].shape[1]
    keys, values = (_per_row(half[:, first - start :], query) for half in part)
    added = None if visible.added is None else visible.added[:, first - visible.first : last - visible.first]
    is_causal = visible.is_causal and start == 0
    if options.key_bias is not None:
        bias = _per_head(options.key_bias[..., first:last], query, part[0])
        added = _causal(added, is_causal, query, keys)
        added, is_causal = bias if added is None else bias + added, False
    has_lse = query.is_cpu and keys.shape[-1] == values.shape[-1]
    needs_steps = options.softcap is not None or (wants_lse and not has_lse)
    if needs_steps or _is_faster_in_steps(query, keys):
        return _attend_in_steps(query, (keys, values), _causal(added, is_causal, query, keys), options)
    if wants_lse:
        if added is not None:
            added = added.expand(*query.shape[:3], -1)
        output, lse = _flash(query, keys, values, 0.0, is_causal, attn_mask=added, scale=options.scaling)
        return output, lse
    output = F.scaled_dot_product_attention(
        query, keys, values, attn_mask=added, is_causal=is_causal, scale=options.scaling
    )
    return output, None


def _is_folded(query: Tensor, kv_heads: int) -> bool:
    """Tell which way `query` lies: [1, kv_heads, group, dim], or [kv_heads, group, tokens, dim]."""
    return query.shape[0] == 1 and query.shape[1] == kv_heads


def _per_row(half: Tensor, query: Tensor) -> Tensor:
    """Lay keys or values [kv_heads, keys, dim] beside the rows of `query`, without a copy."""
    if _is_folded(query, half.shape[0]):
        return half[None]
    return half[:, None].expand(-1, query.shape[1], -1, -1)


def _per_head(thing: Tensor, query: Tensor, keys: Tensor) -> Tensor:
    """Lay something per head [heads, 1, n] beside the rows of `query`."""
    kv_heads, group = keys.shape[0], thing.shape[0] // keys.shape[0]
    return thing.view((1, kv_heads, group, -1) if _is_folded(query, kv_heads) else (kv_heads, group, 1, -1))


def _causal(added: Tensor | None, is_causal: bool, query: Tensor, keys: Tensor) -> Tensor | None:
    """Return `added`, or what `is_causal` stands for: row i sees keys 0 to i."""
    if not is_causal:
        return added
    lowest = torch.finfo(query.dtype).min
    triangle = torch.full((query.shape[2], keys.shape[2]), lowest, dtype=query.dtype, device=query.device)
    return triangle.triu_(1)


def _is_faster_in_steps(query: Tensor, keys: Tensor) -> bool:
    """Tell whether this is a decode in fp32 over so many keys that two matrix products beat the kernel.

    Measured on a CPU with 8 key heads of 64, one thread: 288 against 594 microseconds at 1,000 keys, a tie
    at 250. In bf16 they win as well, but would round the logits to 8 bits before the softmax.
    """
    is_decode = _is_folded(query, keys.shape[1]) and query.shape[2] <= 8
    return is_decode and query.is_cpu and query.dtype == torch.float32 and keys.shape[2] >= 256


def _attend_in_steps(query: Tensor, part: Pair, added: Tensor | None, options: Options) -> Pair:
    """Attend with a softmax of our own in fp32, for what no kernel does, or does slowly."""
    logits = (part[0] @ query.transpose(-1, -2)).transpose(-1, -2).float() * options.scaling
    if options.softcap is not None:
        logits = torch.tanh(logits / options.softcap) * options.softcap
    if added is not None:
        logits = logits + added
    lse = logits.logsumexp(-1)
    weights = torch.exp(logits - lse.unsqueeze(-1))
    return weights.to(query.dtype) @ part[1], lse
