"""What a block takes in memory, known from the config and the table of tensors alone.

Servers ask before they load, and so does whoever tells others what they could host.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig

from swarm.checkpoint.checkpoint import Checkpoint
from swarm.checkpoint.conversion import Conversion
from swarm.checkpoint.dtypes import resolve_dtype
from swarm.checkpoint.fitting import BlockSize
from swarm.checkpoint.matrices import is_quantizable, matrix_of, stacks_of
from swarm.checkpoint.prequantized import NESTED_BLOCK, NF4_CODE, stored_of
from swarm.checkpoint.skeleton import MALFORMED, Skeleton, build_skeleton, cache_keyword, neutralize_ends
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

Quantization = Literal["none", "int8", "nf4"]
IsFused = Callable[[tuple[int, int]], bool]
"""Whether a kernel that wants plain scales will run an nf4 matrix of that shape."""

BLOCK_SIZE = 64
"""Weights of nf4 that share a scale."""


def block_size(
    checkpoint: Checkpoint,
    dtype: str | torch.dtype,
    quantization: str = "none",
    *,
    is_fused: IsFused | None = None,
) -> BlockSize:
    """Tell what one block takes in memory; where blocks differ, the largest counts.

    Without `is_fused` it is the most that it can take on any machine. Raises ConfigError if the model cannot
    be held in `quantization`.
    """
    quantization = resolve_quantization(checkpoint, quantization)
    resolved = resolve_dtype(checkpoint, dtype, "cpu")
    skeleton = build_skeleton(checkpoint.config, resolved)
    quantized = quantized_bytes(checkpoint, skeleton, quantization, is_fused)
    weight_bytes = max(_weight_bytes(block, quantized) for block in skeleton.layers)
    return BlockSize(weight_bytes, _kv_bytes_per_token(skeleton, resolved))


def resolve_quantization(checkpoint: Checkpoint, asked: str) -> Quantization:
    """Return how blocks of `checkpoint` are held: as `asked`, or as they are stored if that is none.

    Raises ConfigError for any other word, and for another quantization than the stored one.
    """
    if asked not in get_args(Quantization):
        raise ConfigError(f"{asked!r} is no quantization; use none, int8 or nf4")
    stored = stored_of(checkpoint.config)
    if stored is None:
        return cast(Quantization, asked)
    if asked not in ("none", stored.kind):
        raise ConfigError(f"{checkpoint.name} is stored in {stored.kind}; leave --quantization out")
    return stored.kind


def quantized_bytes(
    checkpoint: Checkpoint, skeleton: Skeleton, quantization: str, is_fused: IsFused | None = None
) -> dict[int, int]:
    """What quantized weights will take, by the ids of their parameters in `skeleton`."""
    if quantization == "none":
        return {}
    if stored_of(checkpoint.config) is None:
        return _planned_bytes(skeleton.layers, quantization, is_fused)
    conversion = Conversion(skeleton, checkpoint.tensor_names())
    weights = dict(skeleton.model.named_parameters())
    return {
        id(weights[name]): _matrix_bytes(shape, quantization, is_fused, is_nested="nested_absmax" in parts)
        for name, parts in conversion.stored_parts().items()
        if len(shape := conversion.shape_of(name)) == 2
    }


def _planned_bytes(block: nn.Module, kind: str, is_fused: IsFused | None) -> dict[int, int]:
    """What each weight that a server would quantize will take, by the parameter's id."""
    linears = [module for module in block.modules() if is_quantizable(module, kind)]
    matrices = {
        id(it.weight): _matrix_bytes(matrix_of(it).shape, kind, is_fused, is_nested=True) for it in linears
    }
    return matrices | {id(stack): _stack_bytes(stack, kind) for _, _, stack in stacks_of(block, kind)}


def _matrix_bytes(shape: Iterable[int], kind: str, is_fused: IsFused | None, *, is_nested: bool) -> int:
    """What a matrix [out, in] takes: codes, scales, and the tables that turn them into numbers."""
    rows, columns = shape
    if kind == "int8":
        return rows * columns + 4 * rows
    num_scales = -(-rows * columns // BLOCK_SIZE)
    fused = 2 * num_scales
    nested = num_scales + 4 * -(-num_scales // NESTED_BLOCK) + 4 * 256 + 4
    plain = nested if is_nested else 4 * num_scales
    fused_here = fused if is_fused is not None and is_fused((rows, columns)) else plain
    scales = max(fused, plain) if is_fused is None else fused_here
    return rows * columns // 2 + scales + 4 * len(NF4_CODE)


def _stack_bytes(stack: Tensor, kind: str) -> int:
    experts, rows, columns = stack.shape
    if kind == "int8":
        return stack.numel() + 4 * experts * rows
    return stack.numel() // 2 + 2 * experts * -(-rows * columns // BLOCK_SIZE)


def _weight_bytes(block: nn.Module, quantized: dict[int, int]) -> int:
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
    return int(_kept_share(base.config) * sum(tensor.nbytes for tensor in cached if tensor is not None))


def _kept_share(config: PretrainedConfig) -> float:
    """How much of the keys and values that stock blocks keep a server keeps.

    Blocks of this architecture cache a copy for every query head; servers keep one for those that share it.
    """
    if getattr(config, "new_decoder_architecture", False):
        return float(config.num_kv_heads / config.num_attention_heads)
    return 1.0
