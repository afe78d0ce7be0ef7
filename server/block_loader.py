"""A span of blocks, from a checkpoint's tensors to modules that can run.

The result is the family's own base model with a list of blocks that is as long as the whole model: those of
the span have their weights, all others let hidden states through, and so does what only clients need
(embeddings, final norm). Only the span's tensors are read, one block at a time, so the peak is the span
plus one block.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from server.adapters import find_adapter
from swarm.checkpoint import Checkpoint
from swarm.checkpoint.conversion import Conversion, assign
from swarm.checkpoint.digests import Progress
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.skeleton import (
    MALFORMED,
    PassThrough,
    Skeleton,
    build_skeleton,
    cache_keyword,
    does_block_return_tuple,
    neutralize_ends,
    on_meta,
    restore_buffers,
)
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

logger = logging.getLogger(__name__)

QUANTIZATIONS = ("none", "int8", "nf4")

QUANTIZED_BYTES = {"int8": 1.01, "nf4": 0.57}
"""Bytes per element of a quantized matrix: codes, and a scale per row (int8) or per 64 elements (nf4)."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """What one block takes: its largest weights, and its KV cache per token."""

    weight_bytes: int
    kv_bytes_per_token: int


@dataclass(frozen=True, slots=True)
class _Loading:
    """What is being loaded from where to where."""

    checkpoint: Checkpoint
    skeleton: Skeleton
    conversion: Conversion
    device: torch.device | str
    quantization: str
    progress: Progress | None

    def names(self, span: Span) -> list[str]:
        return [name for index in range(span.start, span.end) for name in self.conversion.block_names(index)]


def load_span(
    checkpoint: Checkpoint,
    span: Span,
    *,
    dtype: str | torch.dtype = "auto",
    device: torch.device | str = "cpu",
    quantization: str = "none",
    progress: Progress | None = None,
) -> PreTrainedModel:
    """Load the blocks of `span`; foreign blocks are `PassThrough`, ends `Neutral`, buffers recomputed.

    `progress` hears what goes on, with bytes done and in total. Raises ConfigError if the
    span is outside of the model, a tensor is missing, left over or of the wrong shape, or the family cannot
    be split.
    """
    if span.end > checkpoint.num_blocks:
        raise ConfigError(
            f"{checkpoint.name} has blocks 0:{checkpoint.num_blocks}; {span} is outside of them"
        )
    _check_quantization(quantization)
    skeleton = build_skeleton(checkpoint.config, resolve_dtype(checkpoint, dtype, device))
    conversion = Conversion(skeleton, checkpoint.tensor_names())
    loading = _Loading(checkpoint, skeleton, conversion, device, quantization, progress)
    checkpoint.fetch(loading.names(span), progress)
    _keep_only(skeleton, span)
    _fill(loading, span)
    base = skeleton.base
    restore_buffers(base)
    empty = list(on_meta(base))
    if empty:
        raise ConfigError(f"nothing gave a value to {empty[0]}; Murmur cannot load this family")
    moved: PreTrainedModel = base.to(device)  # type: ignore[arg-type]
    return moved


def block_size(checkpoint: Checkpoint, dtype: str | torch.dtype, quantization: str = "none") -> BlockSize:
    """Tell what one block takes in memory, from the config alone; where blocks differ, the largest counts."""
    _check_quantization(quantization)
    resolved = resolve_dtype(checkpoint, dtype, "cpu")
    skeleton = build_skeleton(checkpoint.config, resolved)
    weight_bytes = max(_weight_bytes(block, quantization) for block in skeleton.layers)
    return BlockSize(weight_bytes, _kv_bytes_per_token(skeleton, resolved))


def _keep_only(skeleton: Skeleton, span: Span) -> None:
    """Replace foreign blocks and ends by modules that change nothing; first see what blocks must return."""
    base, layers = skeleton.base, skeleton.layers
    blocks = list(layers)
    neutralize_ends(base, layers)
    for index, block in enumerate(blocks):
        layers[index] = PassThrough(block, returns_tuple=False)
    restore_buffers(base)
    returns_tuple = does_block_return_tuple(base, layers)
    for index, block in enumerate(blocks):
        layers[index] = block if span.start <= index < span.end else PassThrough(block, returns_tuple)


def _fill(loading: "_Loading", span: Span) -> None:
    """Read, convert and place the tensors of each block in turn."""
    sizes = [
        loading.checkpoint.num_bytes(loading.conversion.block_names(index))
        for index in range(span.start, span.end)
    ]
    for done, index in enumerate(range(span.start, span.end), start=1):
        expected = loading.conversion.block_parameters(index)
        tensors = loading.checkpoint.read(loading.conversion.block_names(index))
        parameters = loading.conversion.convert(tensors, expected)
        del tensors
        is_plain = loading.quantization == "none"
        assign(loading.skeleton.model, parameters, loading.device if is_plain else "cpu")
        if not is_plain:
            _quantize(loading.skeleton.layers[index], loading.quantization, loading.device)
        if loading.progress is not None:
            loading.progress("loading", sum(sizes[:done]), sum(sizes))


def _quantize(block: nn.Module, quantization: str, device: torch.device | str) -> None:
    """Replace a block's linear layers by quantized ones on `device`; all other weights stay as they are."""
    layers = _quantized_layers()
    quantized = _to_int8 if quantization == "int8" else _to_nf4
    for name, linear in list(block.named_modules()):
        if isinstance(linear, nn.Linear):
            block.set_submodule(name, quantized(layers, linear, device))
    block.to(device)


def _quantized_layers() -> Any:
    """Import bitsandbytes. Raises ConfigError if it does not run on this machine."""
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError("bitsandbytes does not run here; leave --quantization out") from error
    # It says at every step of every layer that LLM.int8() computes in fp16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return bitsandbytes.nn


def _to_int8(layers: Any, linear: nn.Linear, device: torch.device | str) -> nn.Module:
    """Quantize by LLM.int8() (arXiv 2208.07339): outliers above 6 are computed in fp16."""
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    made = layers.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0, device="meta")
    made.weight = layers.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = linear.bias
    placed: nn.Module = made.to(device)  # quantizes
    # Else the first step would move the codes out of the weight, away from a copy that shares it.
    made.init_8bit_state()
    return placed


def _to_nf4(layers: Any, linear: nn.Linear, device: torch.device | str) -> nn.Module:
    """Quantize to the 4-bit code of QLoRA (arXiv 2305.14314), with one scale per 64 weights."""
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    dtype = linear.weight.dtype
    made = layers.Linear4bit(*sizes, compute_dtype=dtype, quant_type="nf4", device="meta")
    made.weight = layers.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
    made.bias = linear.bias
    placed: nn.Module = made.to(device)  # quantizes
    return placed


def _check_quantization(quantization: str) -> None:
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"{quantization!r} is no quantization; use none, int8 or nf4")


def _weight_bytes(block: nn.Module, quantization: str) -> int:
    """Add up a block's weights; quantization concerns the matrices of its linear layers."""
    matrices = {id(module.weight) for module in block.modules() if isinstance(module, nn.Linear)}
    return sum(
        int(weight.numel() * QUANTIZED_BYTES[quantization])
        if quantization != "none" and id(weight) in matrices
        else weight.numel() * weight.element_size()
        for weight in block.parameters()
    )


def _kv_bytes_per_token(skeleton: Skeleton, dtype: torch.dtype) -> int:
    """Bytes of keys and values of one token in one block: what the first block caches on the meta device."""
    base, hidden_size = skeleton.base, skeleton.model.config.hidden_size
    neutralize_ends(base, skeleton.layers)
    skeleton.model.set_submodule(skeleton.layers_name, nn.ModuleList([skeleton.layers[0]]))
    cache = DynamicCache()
    hidden = torch.empty(1, 1, hidden_size, dtype=dtype, device="meta")
    try:
        with torch.no_grad():
            base(inputs_embeds=hidden, use_cache=True, **{cache_keyword(base): cache})
    except MALFORMED as error:
        logger.debug("a block does not run to its end without weights: %s", error)  # some experts do not
    cached = [getattr(layer, kind, None) for layer in cache.layers[:1] for kind in ("keys", "values")]
    if not cached or not all(isinstance(tensor, torch.Tensor) for tensor in cached):
        raise ConfigError(f"what a {base.config.model_type} keeps per token is unknown; choose another model")
    adapter = find_adapter(base.config.model_type)
    share = adapter.kv_share(base.config) if adapter else 1.0
    return int(share * sum(tensor.nbytes for tensor in cached if tensor is not None))
