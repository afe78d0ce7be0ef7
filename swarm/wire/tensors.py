"""Tensor <-> raw bytes: the model's own dtype, little-endian, row-major, lossless."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta

DType = Literal["float32", "bfloat16", "float16", "int64"]

_TORCH: dict[DType, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
}
_NAMES: dict[torch.dtype, DType] = {dtype: name for name, dtype in _TORCH.items()}

MAX_DIMS = 4
MAX_ELEMENTS = 1 << 40  # far above any frame; keeps strides of empty tensors within 64 bits


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Shape and dtype of one tensor behind a header; `codec` is raw until slow links need another."""

    dtype: DType
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**31)], ...], Meta(max_length=MAX_DIMS)]
    codec: Literal["raw"] = "raw"

    @property
    def num_bytes(self) -> int:
        """Bytes that the tensor takes on the wire."""
        return math.prod(self.shape) * _TORCH[self.dtype].itemsize


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """Describe `tensor`. Raises KeyError if its dtype has no place on the wire."""
    return TensorSpec(_NAMES[tensor.dtype], tuple(tensor.shape))


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """Bytes of `tensor`; no copy if it is a contiguous CPU tensor."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def from_bytes(spec: TensorSpec, raw: memoryview) -> torch.Tensor:
    """Tensor of `spec` over `raw`, which must be exactly as long as the spec says and writable.

    An empty tensor may claim any size along its other axes: raises ValueError if that is absurd.
    """
    if math.prod(max(size, 1) for size in spec.shape) > MAX_ELEMENTS:
        raise ValueError("the tensor's shape is out of all bounds")
    if spec.num_bytes == 0:
        return torch.empty(spec.shape, dtype=_TORCH[spec.dtype])
    return torch.frombuffer(raw, dtype=_TORCH[spec.dtype]).reshape(spec.shape)


def split_tensors(specs: Sequence[TensorSpec], raw: memoryview) -> tuple[torch.Tensor, ...]:
    """Cut `raw` into the tensors of `specs`. Raises ValueError unless the sizes explain it exactly."""
    sizes = [spec.num_bytes for spec in specs]
    if sum(sizes) != len(raw):
        raise ValueError(f"the header explains {sum(sizes)} bytes of tensors, {len(raw)} came")
    tensors, offset = [], 0
    for spec, size in zip(specs, sizes, strict=True):
        tensors.append(from_bytes(spec, raw[offset : offset + size]))
        offset += size
    return tuple(tensors)
