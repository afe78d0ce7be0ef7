"""Weights that a checkpoint stores in a format of bitsandbytes: what its config says, and single matrices.

int8 (arXiv 2208.07339) is a byte per weight and a scale per row; nf4 (arXiv 2305.14314) is half a byte per
weight and a scale per 64 of them, which may be quantized in its turn. Native code will index memory by these
tensors, and a checkpoint is hostile input: sizes and types are checked here, before anything is built.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor
from transformers import PretrainedConfig

from swarm.errors import ConfigError

Kind = Literal["int8", "nf4"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]

INT8_PARTS = ("SCB", "weight_format")
"""Names beside a weight's: its scales, and its layout in memory, of which only 0 (row by row) is in use."""
NF4_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4")
"""Names below a weight's."""
PACKED_STATE = NF4_PARTS[-1]

NESTED_BLOCK = 256
"""Scales that share a scale: the only number that bitsandbytes can run."""
BLOCKS = frozenset((32, 64, 128, 256, 512, 1024))
"""Weights that share a scale; above 1024 its kernel for CPUs has no exact answer."""
MAX_PACKED_BYTES = 4096
"""A packed state is a JSON object of about 170 letters."""

NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""Quantiles of a normal distribution, scaled to [-1, 1]: the paper's appendix E. Kernels know no others."""


class Stored(msgspec.Struct, frozen=True):
    """How a checkpoint's matrices are stored, as far as it matters for running them."""

    kind: Kind
    threshold: float
    compute_dtype: ComputeDtype


class _Config(msgspec.Struct, frozen=True):
    """The part of a `quantization_config` that is read."""

    quant_method: str = "bitsandbytes"
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    bnb_4bit_quant_type: str = "fp4"
    bnb_4bit_compute_dtype: ComputeDtype = "float32"
    llm_int8_threshold: float = 6.0
    llm_int8_has_fp16_weight: bool = False


class _PackedState(msgspec.Struct, frozen=True):
    """What nf4 keeps of a matrix beside tensors."""

    quant_type: Literal["nf4"]
    blocksize: int
    dtype: ComputeDtype
    shape: tuple[int, int]
    nested_blocksize: int = NESTED_BLOCK
    nested_offset: float = 0.0


def parse_stored(name: str, config: Any) -> Stored | None:
    """Read the `quantization_config` of the model `name`; None if it has none.

    Raises ConfigError for all but int8 and nf4 of bitsandbytes.
    """
    if not config:
        return None
    try:
        parsed = msgspec.convert(config, _Config)
    except msgspec.ValidationError as error:
        raise _not_ours(name) from error
    kinds = {"int8": parsed.load_in_8bit, "nf4": parsed.load_in_4bit and parsed.bnb_4bit_quant_type == "nf4"}
    is_ours = parsed.quant_method == "bitsandbytes" and parsed.load_in_8bit != parsed.load_in_4bit
    if not is_ours or not any(kinds.values()) or parsed.llm_int8_has_fp16_weight:
        raise _not_ours(name)
    if not 0.0 <= parsed.llm_int8_threshold < math.inf:
        raise _not_ours(name)
    kind: Kind = "int8" if kinds["int8"] else "nf4"
    return Stored(kind, parsed.llm_int8_threshold, parsed.bnb_4bit_compute_dtype)


def stored_of(config: PretrainedConfig) -> Stored | None:
    """Tell how the weights of `config`'s checkpoint are stored; None if as plain numbers."""
    return parse_stored(str(config.model_type), getattr(config, "quantization_config", None))


def split_part(name: str, kind: Kind) -> tuple[str, str] | None:
    """Return the weight that tensor `name` belongs to and which part of it this is; None if it is no part.

    `a.q_proj.SCB` is `("a.q_proj.weight", "SCB")`, `a.q_proj.weight.absmax` `("a.q_proj.weight", "absmax")`.
    """
    parts, joint = (INT8_PARTS, ".") if kind == "int8" else (NF4_PARTS, ".weight.")
    for part in parts:
        stem = name.removesuffix(f"{joint}{part}")
        if stem != name:
            return f"{stem}.weight", part
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Int8Matrix:
    """`codes` int8 [out, in] and `scales` fp32 [out]: a weight is code × scale / 127."""

    codes: Tensor
    scales: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self) -> Tensor:
        """Return the weights [out, in] in fp32."""
        return self.codes.float() * (self.scales[:, None] / 127)


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """Quantized scales: a scale is code[number] × absmax[number of its 256] + offset. All fp32."""

    absmax: Tensor
    code: Tensor
    offset: float


@dataclass(frozen=True, slots=True, eq=False)
class Nf4Matrix:
    """Row by row two weights to a byte of `codes` uint8 [out × in / 2], the first in the upper half.

    `absmax` [out × in / block_size], rounded up, is fp32, or uint8 if it is `nested`.
    """

    shape: tuple[int, int]
    codes: Tensor
    absmax: Tensor
    block_size: int
    nested: Nested | None

    def scales(self) -> Tensor:
        """Return the scale of every `block_size` weights in fp32."""
        if self.nested is None:
            return self.absmax
        per_scale = self.nested.absmax.repeat_interleave(NESTED_BLOCK)[: len(self.absmax)]
        return self.nested.code[self.absmax.long()] * per_scale + self.nested.offset

    def dequantize(self) -> Tensor:
        """Return the weights [out, in] in fp32."""
        halves = torch.stack([self.codes >> 4, self.codes & 0xF], dim=-1).flatten()
        weights = torch.tensor(NF4_CODE)[halves.int()]
        return (weights * self.scales().repeat_interleave(self.block_size)[: len(weights)]).view(self.shape)


StoredMatrix = Int8Matrix | Nf4Matrix


def parse_matrix(name: str, kind: Kind, shape: tuple[int, ...], parts: Mapping[str, Tensor]) -> StoredMatrix:
    """Put the tensors of weight `name` together; `parts` has the weight itself as "weight".

    Raises ConfigError if one is missing, or is not what a matrix of `shape` [out, in] needs.
    """
    if len(shape) != 2:
        raise _malformed(name, "is no matrix of a linear layer")
    return _int8(name, shape, parts) if kind == "int8" else _nf4(name, shape, parts)


def _int8(name: str, shape: tuple[int, ...], parts: Mapping[str, Tensor]) -> Int8Matrix:
    codes = _part(name, parts, "weight", torch.int8, shape[0] * shape[1])
    scales = _part(name, parts, "SCB", torch.float32, shape[0])
    layout = parts.get("weight_format")
    if codes.shape != shape:
        raise _malformed(name, f"has shape {list(codes.shape)}, not {list(shape)}")
    if layout is not None and (layout.numel() != 1 or int(layout) != 0):
        raise _malformed(name, "is not stored row by row")
    return Int8Matrix(codes, scales.flatten())


def _nf4(name: str, shape: tuple[int, ...], parts: Mapping[str, Tensor]) -> Nf4Matrix:
    state = _unpack(name, parts)
    size = shape[0] * shape[1]
    if state.shape != shape or state.blocksize not in BLOCKS or shape[1] % 2:
        raise _malformed(name, f"is packed as {list(state.shape)} by {state.blocksize}, not as {list(shape)}")
    codes = _bytes_of(name, parts, size // 2)
    if not torch.allclose(_part(name, parts, "quant_map", torch.float32, 16), torch.tensor(NF4_CODE)):
        raise _malformed(name, "has a quant_map that is not nf4's")
    num_blocks = -(-size // state.blocksize)
    nested = _nested(name, parts, state, num_blocks)
    absmax = _part(name, parts, "absmax", torch.float32 if nested is None else torch.uint8, num_blocks)
    return Nf4Matrix((shape[0], shape[1]), codes, absmax.flatten(), state.blocksize, nested)


def _nested(name: str, parts: Mapping[str, Tensor], state: _PackedState, num_blocks: int) -> Nested | None:
    if "nested_absmax" not in parts:
        return None
    if state.nested_blocksize != NESTED_BLOCK or not math.isfinite(state.nested_offset):
        raise _malformed(name, "has scales that bitsandbytes cannot read")
    absmax = _part(name, parts, "nested_absmax", torch.float32, -(-num_blocks // NESTED_BLOCK))
    code = _part(name, parts, "nested_quant_map", torch.float32, 256)
    return Nested(absmax.flatten(), code.flatten(), state.nested_offset)


def _unpack(name: str, parts: Mapping[str, Tensor]) -> _PackedState:
    packed = parts.get(PACKED_STATE)
    if packed is None:
        raise _malformed(name, f"lacks its {PACKED_STATE}")
    if packed.dtype != torch.uint8 or packed.numel() > MAX_PACKED_BYTES:
        raise _malformed(name, f"has a {PACKED_STATE} that is not one")
    try:
        return msgspec.json.decode(bytes(packed.flatten().tolist()), type=_PackedState)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _malformed(name, f"has a {PACKED_STATE} that cannot be read") from error


def _bytes_of(name: str, parts: Mapping[str, Tensor], count: int) -> Tensor:
    """The packed weights: some checkpoints call the bytes by the name of a floating dtype."""
    weight = parts.get("weight")
    if weight is None or weight.nbytes != count:
        found = "nothing" if weight is None else f"{weight.nbytes} bytes"
        raise _malformed(name, f"holds {found} where {count} bytes belong")
    return weight.flatten().view(torch.uint8)


def _part(name: str, parts: Mapping[str, Tensor], part: str, dtype: torch.dtype, count: int) -> Tensor:
    tensor = parts.get(part)
    if tensor is None:
        raise _malformed(name, f"lacks its {part}")
    if tensor.dtype != dtype or tensor.numel() != count:
        what = f"{tensor.numel()} numbers of {str(tensor.dtype).removeprefix('torch.')}"
        raise _malformed(name, f"has {what} as {part}, not {count} of {str(dtype).removeprefix('torch.')}")
    return tensor


def _malformed(name: str, what: str) -> ConfigError:
    return ConfigError(f"the quantized tensor {name} {what}; the checkpoint is damaged, get it again")


def _not_ours(name: str) -> ConfigError:
    return ConfigError(
        f"{name} is stored quantized; take the original weights and use --quantization instead, or a version"
        " that is stored in int8 or nf4 of bitsandbytes"
    )
