"""A span of blocks, from a checkpoint's tensors to modules that can run.

The result is the family's own base model with a list of blocks that is as long as the whole model: those of
the span have their weights, all others let hidden states through, and so does what only clients need
(embeddings, final norm). Only the span's tensors are read, one block at a time, so the peak is the span
plus one block.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from server.adapters import find_adapter
from server.quantization import (
    matrix_bytes,
    place_stored,
    planned_bytes,
    quantize,
    resolve_quantization,
)
from server.resources import give_back_memory
from swarm.checkpoint import Checkpoint
from swarm.checkpoint.conversion import Conversion, assign
from swarm.checkpoint.digests import Progress
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.prequantized import stored_of
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

MAX_FULL_SHARE = 0.1
"""Of the numbers in a quantized block: if more stay as they are, the person should know."""


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

    Weights that the checkpoint stores quantized stay as they are. `progress` hears what goes on, with bytes
    done and in total. Raises ConfigError if the span is outside of the model, a tensor is missing, left over
    or of the wrong shape, the family cannot be split, or it cannot be held in `quantization`.
    """
    if span.end > checkpoint.num_blocks:
        raise ConfigError(
            f"{checkpoint.name} has blocks 0:{checkpoint.num_blocks}; {span} is outside of them"
        )
    quantization = resolve_quantization(checkpoint, quantization)
    skeleton = build_skeleton(checkpoint.config, resolve_dtype(checkpoint, dtype, device))
    conversion = Conversion(skeleton, checkpoint.tensor_names())
    loading = _Loading(checkpoint, skeleton, conversion, device, quantization, progress)
    checkpoint.fetch(loading.names(span), progress)
    if quantization != "none":
        _say_what_stays_full(skeleton, span, _quantized_bytes(checkpoint, skeleton, quantization))
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
    quantization = resolve_quantization(checkpoint, quantization)
    resolved = resolve_dtype(checkpoint, dtype, "cpu")
    skeleton = build_skeleton(checkpoint.config, resolved)
    quantized = _quantized_bytes(checkpoint, skeleton, quantization)
    weight_bytes = max(_weight_bytes(block, quantized) for block in skeleton.layers)
    return BlockSize(weight_bytes, _kv_bytes_per_token(skeleton, resolved))


def _quantized_bytes(checkpoint: Checkpoint, skeleton: Skeleton, quantization: str) -> dict[int, int]:
    """What quantized weights will take, by the ids of their parameters in `skeleton`."""
    if quantization == "none":
        return {}
    if stored_of(checkpoint.config) is None:
        return planned_bytes(skeleton.layers, quantization)
    conversion = Conversion(skeleton, checkpoint.tensor_names())
    weights = dict(skeleton.model.named_parameters())
    return {
        id(weights[name]): matrix_bytes(shape, quantization, is_nested="nested_absmax" in parts)
        for name, parts in conversion.stored_parts().items()
        if len(shape := conversion.shape_of(name)) == 2
    }


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
        _place(loading, index, loading.checkpoint.read(loading.conversion.block_names(index)))
        if loading.quantization != "none":
            give_back_memory()  # full weights leave holes: without this, nf4 took 4.6 times its size
        if loading.progress is not None:
            loading.progress("loading", sum(sizes[:done]), sum(sizes))


def _place(loading: "_Loading", index: int, tensors: dict[str, Tensor]) -> None:
    """Put the tensors of block `index` into the model, quantized if that is asked for."""
    conversion, model, block = loading.conversion, loading.skeleton.model, loading.skeleton.layers[index]
    matrices = conversion.take_stored(tensors)
    parameters = conversion.convert(tensors, conversion.block_parameters(index) - matrices.keys())
    is_full = loading.quantization == "none" or conversion.stored is not None
    assign(model, parameters, loading.device if is_full else "cpu")
    for name, matrix in matrices.items():
        assert conversion.stored is not None
        place_stored(model, name, matrix, conversion.stored, loading.device)
    if not is_full:
        quantize(block, loading.quantization, loading.device)


def _say_what_stays_full(skeleton: Skeleton, span: Span, quantized: Mapping[int, int]) -> None:
    """Warn if much of a block cannot be quantized: some families keep weights in layouts of their own."""
    weights = list(skeleton.layers[span.start].parameters())
    total = sum(weight.numel() for weight in weights)
    full = sum(weight.numel() for weight in weights if id(weight) not in quantized)
    if full > MAX_FULL_SHARE * total:
        share, kept_in = 100 * full / total, str(skeleton.model.dtype).removeprefix("torch.")
        logger.warning("%.0f %% of a block's weights are not quantized but stay in %s", share, kept_in)


def _weight_bytes(block: nn.Module, quantized: Mapping[int, int]) -> int:
    """Add up a block's weights; `quantized` tells, by their ids, what some of them will take instead."""
    return sum(
        quantized.get(id(weight), weight.numel() * weight.element_size()) for weight in block.parameters()
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
