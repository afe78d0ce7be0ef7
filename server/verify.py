"""The comparison before a server goes online: our ragged attention against transformers' own.

A new family, or a new version of transformers, may ask of attention what we do not know. So one block of each
kind in the span runs twice: here, as two ragged sessions that prefill and decode, and in stock transformers
with its eager attention (or what an adapter names), on the same weights.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from server.attention import Chunk
from server.kv_cache import KVPool, SessionCache
from server.quantization import is_quantized
from server.rounding import MAX_DIFFERENCE
from server.span import OwnBlock, SpanModel, find_blocks, layer_types
from swarm.checkpoint.skeleton import PassThrough
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

QUANTIZED_DIFFERENCE = MAX_DIFFERENCE[torch.bfloat16]
"""Allowed of the median token, in any dtype, if weights are quantized: int8 rounds its inputs to 127 steps,
in columns that a whole batch has in common, and nf4 may be computed in bf16."""
_STEPS = ((7, 4), (1, 5), (1, 1), (1, 1))
"""Tokens of the two sessions in each batch: prompts, a decode beside a chunk, decodes."""


def verify_span(model: SpanModel) -> None:
    """Compare one block of each kind with stock transformers.

    Raises ConfigError, in one sentence, if a difference is above MAX_DIFFERENCE or a block cannot run.
    """
    for index in _one_of_each_kind(model):
        try:
            difference = _difference(model, index)
        except ConfigError:
            raise
        except Exception as error:
            kind = model.model.config.model_type
            raise ConfigError(
                f"{kind} models cannot be split yet, their blocks do not run here ({type(error).__name__});"
                " choose another model"
            ) from error
        is_full = not is_quantized(model.own_block(index))
        allowed = MAX_DIFFERENCE[model.dtype] if is_full else QUANTIZED_DIFFERENCE
        if not difference <= allowed:
            raise ConfigError(
                f"block {index} of this {model.model.config.model_type} model would answer differently here"
                f" than in transformers (by {difference:.1e}, allowed {allowed:.0e}); choose another model"
            )


def _one_of_each_kind(model: SpanModel) -> Iterator[int]:
    """Name the first block of each kind: blocks of one kind have equal attention types and parameters."""
    kinds = layer_types(model.model.config)
    seen = set()
    for index in range(model.span.start, model.span.end):
        shapes = tuple((name, tensor.shape) for name, tensor in model.own_block(index).named_parameters())
        if (kinds[index], shapes) not in seen:
            seen.add((kinds[index], shapes))
            yield index


def _difference(model: SpanModel, index: int) -> float:
    """Run block `index` both ways on random inputs; return the difference that has to be small enough."""
    generator = torch.Generator().manual_seed(index)
    lengths = [sum(counts) for counts in zip(*_STEPS, strict=True)]
    inputs = [torch.randn(length, model.hidden_size, generator=generator) for length in lengths]
    inputs = [hidden.to(model.dtype) for hidden in inputs]
    stock = _stock(model, index)
    differences = []
    for hidden, ours in zip(inputs, _run_ragged(model, index, inputs), strict=True):
        theirs = _run_stock(stock, hidden.to(model.device)).cpu().float()
        differences.append((ours.float() - theirs).abs().amax(-1) / theirs.abs().max().clamp(min=1))
    by_token = torch.cat(differences)
    is_exact = model.dtype == torch.float32 and not is_quantized(model.own_block(index))
    return float(by_token.max() if is_exact else by_token.median())


def _run_ragged(model: SpanModel, index: int, inputs: list[Tensor]) -> list[Tensor]:
    """Run both sessions side by side, step by step, through our side of block `index`."""
    span = Span(index, index + 1)
    pool = KVPool(1024)
    caches = [pool.open(span) for _ in inputs]
    outputs: list[list[Tensor]] = [[] for _ in inputs]
    for counts in _STEPS:
        chunks = []
        for cache, hidden, count in zip(caches, inputs, counts, strict=True):
            chunks.append(_next_chunk(pool, cache, hidden, count))
        for session, output in zip(outputs, model.run(chunks), strict=True):
            session.append(output)
    return [torch.cat(session) for session in outputs]


def _next_chunk(pool: KVPool, cache: SessionCache, hidden: Tensor, count: int) -> Chunk:
    position = cache.used
    pool.begin_write(cache, position, position + count)
    return Chunk(cache, cache.span, position, hidden[position : position + count])


def _stock(model: SpanModel, index: int) -> PreTrainedModel:
    """Return the family's model as transformers has it, of which only block `index` does anything.

    Weights are shared with `model`, not copied.
    """
    ours = model.model
    shared = {id(tensor): tensor for tensor in (*ours.parameters(), *ours.buffers())}
    stock: PreTrainedModel = copy.deepcopy(ours, shared)
    blocks = find_blocks(stock)
    returns_tuple = model.adapter is not None and model.adapter.returns_tuple
    for other, block in enumerate(blocks):
        if isinstance(block, OwnBlock):
            blocks[other] = block.block if other == index else PassThrough(block, returns_tuple)
    if model.adapter is not None:
        model.adapter.restore(blocks[index])
    implementation = "eager" if model.adapter is None else model.adapter.stock_attention
    for module in stock.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = implementation
    return stock


def _run_stock(stock: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Run all of `hidden` [tokens, hidden] at once, without a cache."""
    with torch.inference_mode():
        output: Tensor = stock(inputs_embeds=hidden[None], use_cache=False)[0]
    return output[0]
