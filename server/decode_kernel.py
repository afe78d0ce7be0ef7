"""Attention of many sessions' newest tokens in one launch on a GPU, where their keys lie.

Keys are never gathered: the kernel is given the addresses of each session's extent and of the prefix that it
shares, if any. One program takes one session, one key head with all its query heads, and SPLIT_TOKENS keys
from the first that the session sees; a second launch joins what those of a session found by their
log-sum-exps, as in Flash-Decoding (https://crfm.stanford.edu/2023/10/12/flashdecoding.html). How a session's
keys are split depends on nothing but itself, so neither does what it attends to.

The new token's key and value are written into the extent on the way: one launch more for each would cost
more than all of attention, once there are 32 sessions.

Triton comes with torch for CUDA on Linux, and nowhere else: `server.newest` asks before it imports this.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

FIELDS = 13
"""Numbers per session in the table: `server.newest.Newest.numbers`."""
SPLIT_TOKENS = 1024
_LEAST_DOT = 16
_LEAST_SPLITS = 16
_ANY = ["table", "num_splits"]
"""The kernels are compiled once for all sessions of up to so many splits, and for tables that lie anywhere:
each time takes seconds, in which every session of the server waits."""
_TRIED_TOKENS = 100
_MOST_SUMS = 1 << 14
"""Numbers that one program may keep in registers for its outputs."""


def can_take(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Tell whether heads are of a size that a program can hold."""
    group = query.shape[0] // keys.shape[0]
    widest = max(_padded(keys.shape[2]), _padded(values.shape[2]))
    return query.dtype == keys.dtype == values.dtype and _padded(group) * widest <= _MOST_SUMS


def try_out(query: Tensor, keys: Tensor, values: Tensor) -> None:
    """Run the kernels for one row of ones `[heads, 1, dim]`. Raises whatever keeps them from running here."""
    past = [half.repeat(1, _TRIED_TOKENS, 1) for half in (keys, values)]
    places = [number for half in past for number in (half.data_ptr(), half.stride(0))]
    table = torch.tensor([(0, _TRIED_TOKENS - 1, 0, 0, 0, *places * 2)], device=query.device)
    output = query.new_zeros((1, query.shape[0], values.shape[2]))
    decode(query, keys, values, table, 1, 1.0, None, None, None, output)
    if not bool((output == 1).all()):
        raise ArithmeticError("its attention is wrong")


def decode(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    num_splits: int,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
    key_bias: Tensor | None,
    output: Tensor,
) -> None:
    """Fill in the sessions' rows of `output` [rows, heads, value_dim], and their new tokens in their extents.

    `query` [heads, rows, dim], `keys` [kv_heads, rows, dim] and `values` [kv_heads, rows, value_dim] are
    those of a batch; `table` [sessions, FIELDS] says which row is whose. `sinks` and `key_bias` are as in
    `attention_kernels.Options`.
    """
    (heads, _, dim), kv_heads, value_dim = query.shape, keys.shape[0], values.shape[2]
    sessions, group = table.shape[0], heads // kv_heads
    found = query.new_empty((sessions, heads, num_splits, value_dim), dtype=torch.float32)
    lse = query.new_empty((sessions, heads, num_splits), dtype=torch.float32)
    widest = max(_padded(dim), _padded(value_dim))
    _attend_split[(sessions, kv_heads, num_splits)](
        query, keys, values, table, found, lse, key_bias if key_bias is not None else query,
        scaling, softcap or 0.0,
        *query.stride(), *keys.stride(), *values.stride(), key_bias.stride(0) if key_bias is not None else 0,
        num_splits,
        FIELDS=FIELDS, SPLIT=SPLIT_TOKENS, GROUP=group, HEADS=heads, DIM=dim, VALUE_DIM=value_dim,
        BLOCK_GROUP=_padded(group), BLOCK_DIM=_padded(dim), BLOCK_VALUE=_padded(value_dim),
        BLOCK_KEYS=64 if widest <= 128 and keys.itemsize == 2 else 32,
        HAS_SOFTCAP=softcap is not None, HAS_BIAS=key_bias is not None,
        IS_ALIGNED=(dim * keys.itemsize) % 16 == 0 and (value_dim * keys.itemsize) % 16 == 0,
    )  # fmt: skip
    _join_splits[(sessions, heads)](
        found, lse, output, table, sinks if sinks is not None else lse, num_splits,
        FIELDS=FIELDS, HEADS=heads, VALUE_DIM=value_dim, BLOCK_VALUE=_padded(value_dim),
        BLOCK_SPLITS=max(_LEAST_SPLITS, triton.next_power_of_2(num_splits)), HAS_SINKS=sinks is not None,
    )  # fmt: skip


def _padded(size: int) -> int:
    return max(_LEAST_DOT, int(triton.next_power_of_2(size)))


@triton.jit  # type: ignore[untyped-decorator]
def _attend_part(  # type: ignore[no-untyped-def]
    query, output, most, total, keys, values, bias, first, lo, hi, scaling, softcap, bias_stride,
    GROUP: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_GROUP: tl.constexpr,
    BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr, HAS_BIAS: tl.constexpr, IS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """Go on with a softmax over positions `[lo, hi)` of a part whose first one is `first`."""
    rows = tl.arange(0, BLOCK_GROUP)
    dims = tl.arange(0, BLOCK_DIM)
    value_dims = tl.arange(0, BLOCK_VALUE)
    if IS_ALIGNED:
        keys = tl.multiple_of(keys, 16)
        values = tl.multiple_of(values, 16)
    for start in range(lo, hi, BLOCK_KEYS):
        positions = start + tl.arange(0, BLOCK_KEYS)
        is_inside = positions < hi
        places = positions - first
        key = tl.load(
            keys + places[None, :] * DIM + dims[:, None],
            mask=is_inside[None, :] & (dims < DIM)[:, None],
            other=0.0,
        )
        logits = tl.dot(query, key, input_precision="ieee") * scaling
        if HAS_SOFTCAP:
            scaled = logits / softcap
            logits = softcap * (2.0 / (1.0 + tl.exp(-2.0 * scaled)) - 1.0)
        if HAS_BIAS:
            added = tl.load(
                bias + rows[:, None] * bias_stride + positions[None, :],
                mask=(rows < GROUP)[:, None] & is_inside[None, :],
                other=0.0,
            )
            logits += added.to(tl.float32)
        logits = tl.where(is_inside[None, :], logits, float("-inf"))
        new_most = tl.maximum(most, tl.max(logits, 1))
        weights = tl.exp(logits - new_most[:, None])
        shrink = tl.exp(most - new_most)
        value = tl.load(
            values + places[:, None] * VALUE_DIM + value_dims[None, :],
            mask=is_inside[:, None] & (value_dims < VALUE_DIM)[None, :],
            other=0.0,
        )
        output = output * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * shrink + tl.sum(weights, 1)
        most = new_most
    return output, most, total


@triton.jit  # type: ignore[untyped-decorator]
def _attend_new(  # type: ignore[no-untyped-def]
    query, output, key, value, own_key, own_value, bias, scaling, softcap, bias_stride,
    GROUP: tl.constexpr, DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_GROUP: tl.constexpr,
    BLOCK_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr, HAS_SOFTCAP: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Begin a softmax with the new token itself, and cache it. `key` and `value` are addresses."""
    rows, dims, value_dims = tl.arange(0, BLOCK_GROUP), tl.arange(0, BLOCK_DIM), tl.arange(0, BLOCK_VALUE)
    new_key = tl.load(key, mask=dims < DIM, other=0.0)
    new_value = tl.load(value, mask=value_dims < VALUE_DIM, other=0.0)
    tl.store(own_key + dims, new_key, mask=dims < DIM)
    tl.store(own_value + value_dims, new_value, mask=value_dims < VALUE_DIM)
    logits = tl.sum(query.to(tl.float32) * new_key.to(tl.float32)[None, :], 1) * scaling
    if HAS_SOFTCAP:
        logits = softcap * (2.0 / (1.0 + tl.exp(-2.0 * (logits / softcap))) - 1.0)
    if HAS_BIAS:
        logits += tl.load(bias + rows * bias_stride, mask=rows < GROUP, other=0.0).to(tl.float32)
    return output + new_value.to(tl.float32)[None, :], logits


@triton.jit(do_not_specialize=_ANY)  # type: ignore[untyped-decorator]
def _attend_split(  # type: ignore[no-untyped-def]
    query, new_keys, new_values, table, found, lse, bias, scaling, softcap,
    query_head, query_row, query_dim, key_head, key_row, key_dim, value_head, value_row, value_dim,
    bias_stride, num_splits,
    FIELDS: tl.constexpr, SPLIT: tl.constexpr, GROUP: tl.constexpr, HEADS: tl.constexpr,
    DIM: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_GROUP: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK_VALUE: tl.constexpr, BLOCK_KEYS: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    HAS_BIAS: tl.constexpr, IS_ALIGNED: tl.constexpr,
):  # fmt: skip
    """One program: keys `[lo, hi)` of a session, for all query heads of one key head."""
    session, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    mine = table + session * FIELDS
    row, position, visible = tl.load(mine), tl.load(mine + 1), tl.load(mine + 2)
    first, start = tl.load(mine + 3), tl.load(mine + 4)
    lo = visible + split * SPLIT
    hi = tl.minimum(lo + SPLIT, position)
    of_keys = tl.pointer_type(new_keys.dtype.element_ty)
    of_values = tl.pointer_type(new_values.dtype.element_ty)
    keys = tl.load(mine + 5).to(of_keys) + kv_head * tl.load(mine + 6)
    values = tl.load(mine + 7).to(of_values) + kv_head * tl.load(mine + 8)
    bias += kv_head * GROUP * bias_stride

    rows, dims, value_dims = tl.arange(0, BLOCK_GROUP), tl.arange(0, BLOCK_DIM), tl.arange(0, BLOCK_VALUE)
    heads = kv_head * GROUP + rows
    asked = tl.load(
        query + heads[:, None] * query_head + row * query_row + dims[None, :] * query_dim,
        mask=(rows < GROUP)[:, None] & (dims < DIM)[None, :],
        other=0.0,
    )
    most = tl.full((BLOCK_GROUP,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_GROUP,), tl.float32)
    output = tl.zeros((BLOCK_GROUP, BLOCK_VALUE), tl.float32)
    if split == (position - visible) // SPLIT:
        output, most = _attend_new(
            asked, output,
            new_keys + kv_head * key_head + row * key_row + dims * key_dim,
            new_values + kv_head * value_head + row * value_row + value_dims * value_dim,
            keys + (position - start) * DIM, values + (position - start) * VALUE_DIM,
            bias + position, scaling, softcap, bias_stride, GROUP, DIM, VALUE_DIM, BLOCK_GROUP,
            BLOCK_DIM, BLOCK_VALUE, HAS_SOFTCAP, HAS_BIAS,
        )  # fmt: skip
        total += 1.0
    if lo < start:
        output, most, total = _attend_part(
            asked, output, most, total, tl.load(mine + 9).to(of_keys) + kv_head * tl.load(mine + 10),
            tl.load(mine + 11).to(of_values) + kv_head * tl.load(mine + 12), bias, first, lo,
            tl.minimum(hi, start), scaling, softcap, bias_stride, GROUP, DIM, VALUE_DIM, BLOCK_GROUP,
            BLOCK_DIM, BLOCK_VALUE, BLOCK_KEYS, HAS_SOFTCAP, HAS_BIAS, IS_ALIGNED,
        )  # fmt: skip
    output, most, total = _attend_part(
        asked, output, most, total, keys, values, bias, start, tl.maximum(lo, start), hi,
        scaling, softcap, bias_stride, GROUP, DIM, VALUE_DIM, BLOCK_GROUP, BLOCK_DIM, BLOCK_VALUE,
        BLOCK_KEYS, HAS_SOFTCAP, HAS_BIAS, IS_ALIGNED,
    )  # fmt: skip

    places = (session * HEADS + heads) * num_splits + split
    tl.store(lse + places, most + tl.log(total), mask=rows < GROUP)
    tl.store(
        found + places[:, None] * VALUE_DIM + value_dims[None, :],
        output / total[:, None],
        mask=((rows < GROUP) & (total > 0.0))[:, None] & (value_dims < VALUE_DIM)[None, :],
    )


@triton.jit(do_not_specialize=_ANY)  # type: ignore[untyped-decorator]
def _join_splits(  # type: ignore[no-untyped-def]
    found, lse, output, table, sinks, num_splits,
    FIELDS: tl.constexpr, HEADS: tl.constexpr, VALUE_DIM: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    session, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = session * HEADS + head
    splits, value_dims = tl.arange(0, BLOCK_SPLITS), tl.arange(0, BLOCK_VALUE)
    each_lse = tl.load(lse + place * num_splits + splits, mask=splits < num_splits, other=float("-inf"))
    most = tl.max(each_lse, 0)
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        most = tl.maximum(most, sink)
    weights = tl.exp(each_lse - most)
    total = tl.sum(weights, 0)
    if HAS_SINKS:
        total += tl.exp(sink - most)
    is_there = (weights > 0.0)[:, None] & (value_dims < VALUE_DIM)[None, :]
    each = tl.load(
        found + (place * num_splits + splits)[:, None] * VALUE_DIM + value_dims[None, :],
        mask=is_there,
        other=0.0,
    )
    joined = tl.sum(each * weights[:, None], 0) / total
    mine = output + (tl.load(table + session * FIELDS) * HEADS + head) * VALUE_DIM
    tl.store(mine + value_dims, joined.to(output.dtype.element_ty), mask=value_dims < VALUE_DIM)
