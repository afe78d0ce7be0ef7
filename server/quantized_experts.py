"""Stacks of experts, quantized: parameters of three dimensions, which are no linear layers.

Families that let transformers choose how experts run keep them as `[experts, ..., ...]` and, in the eager
way, pick one matrix at a time by its number. So a stack can be replaced by a module that answers to a number
with that expert's matrix, dequantized for the moment. Inputs are not rounded, unlike those of linear layers
in int8.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from swarm.checkpoint.block_sizes import BLOCK_SIZE
from swarm.checkpoint.matrices import stacks_of

SLICE_WEIGHTS = 1 << 20

_OPERATIONS = torch.ops.bitsandbytes
"""Filled once bitsandbytes is loaded."""


class QuantizedExperts(nn.Module):
    """Stands where a parameter `[experts, rows, columns]` was: `stack[number]` is that expert's matrix."""

    def __init__(self, stack: Tensor, kind: str, device: torch.device | str) -> None:
        super().__init__()
        self._shape = list(stack.shape[1:])
        self._dtype = stack.dtype
        quantize = _int8 if kind == "int8" else _nf4
        codes, scales = zip(*(quantize(expert.to(device)) for expert in stack), strict=True)
        self.codes: Tensor
        self.scales: Tensor
        self.register_buffer("codes", torch.stack(codes), persistent=False)
        self.register_buffer("scales", torch.stack(scales), persistent=False)

    def __getitem__(self, number: Tensor | int) -> Tensor:
        """Return an expert's matrix [rows, columns] in the dtype of the stack."""
        codes, scales = self.codes[number], self.scales[number].float()
        if codes.dtype == torch.int8:
            return (codes * (scales[:, None] / 127)).to(self._dtype)
        matrix: Tensor = _OPERATIONS.dequantize_4bit(
            codes, scales, BLOCK_SIZE, "nf4", self._shape, self._dtype
        )
        return matrix


def row_slices(matrix: Tensor) -> Iterator[Tensor]:
    """Yield some rows at a time: on its way into nf4 a weight takes 20 bytes. 64 rows hold whole scales."""
    rows = max(1, SLICE_WEIGHTS // matrix.shape[1] // BLOCK_SIZE) * BLOCK_SIZE
    return (part.contiguous() for part in torch.split(matrix, rows))


def _int8(matrix: Tensor) -> tuple[Tensor, Tensor]:
    parts = [_OPERATIONS.int8_vectorwise_quant(part.half(), 0.0) for part in row_slices(matrix)]
    return torch.cat([codes for codes, _, _ in parts]), torch.cat([scales for _, scales, _ in parts])


def _nf4(matrix: Tensor) -> tuple[Tensor, Tensor]:
    parts = [_OPERATIONS.quantize_4bit(part, BLOCK_SIZE, "nf4", torch.uint8) for part in row_slices(matrix)]
    codes, scales = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(scales).bfloat16()


def quantize_experts(block: nn.Module, kind: str, device: torch.device | str) -> None:
    """Replace the stacks of `block` by quantized ones on `device`. bitsandbytes must be loaded."""
    for module, name, parameter in stacks_of(block, kind):
        delattr(module, name)
        module.add_module(name, QuantizedExperts(parameter.data, kind, device))
        config = module.config
        assert isinstance(config, PretrainedConfig)
        config._experts_implementation = "eager"  # the other ways take the whole stack at once
