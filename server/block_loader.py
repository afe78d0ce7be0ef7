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
from torch import Tensor
from transformers import PreTrainedModel

from server.quantization import is_fused, place_stored, quantize
from server.resources import give_back_memory
from swarm.checkpoint import Checkpoint
from swarm.checkpoint.block_sizes import block_size as size_of_block
from swarm.checkpoint.block_sizes import quantized_bytes, resolve_quantization
from swarm.checkpoint.conversion import Conversion, assign
from swarm.checkpoint.digests import Progress
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.fitting import BlockSize
from swarm.checkpoint.skeleton import (
    PassThrough,
    Skeleton,
    build_skeleton,
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
        _say_what_stays_full(skeleton, span, quantized_bytes(checkpoint, skeleton, quantization))
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
    """See swarm.checkpoint.block_sizes.block_size; with the kernels that this machine's CPU has."""
    return size_of_block(checkpoint, dtype, quantization, is_fused=is_fused)


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
