"""Quantized matrices through bitsandbytes: made here from full ones, or taken as the checkpoint stores them.

int8 is LLM.int8() (arXiv 2208.07339): inputs are rounded as well, and those columns of them that reach a
threshold are computed in full. nf4 is the code of QLoRA (arXiv 2305.14314): weights alone, 64 to a scale.
What is no matrix of a linear layer stays as it is, but for stacks of experts, see `quantized_experts`.
"""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from server.quantized_experts import quantize_experts, row_slices
from swarm.checkpoint.block_sizes import BLOCK_SIZE
from swarm.checkpoint.matrices import bias_of, is_linear, is_quantizable, matrix_of
from swarm.checkpoint.prequantized import (
    NESTED_BLOCK,
    NF4_CODE,
    Int8Matrix,
    Nested,
    Nf4Matrix,
    Stored,
    StoredMatrix,
)
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

OUTLIER = 6.0
"""Inputs of LLM.int8() that reach it are computed in full: the paper's choice."""

FUSED_ROWS = 32
"""bitsandbytes' kernel for CPUs with bf16 instructions takes so many rows at a time, and whole scales."""


def is_quantized(block: nn.Module) -> bool:
    """Whether any weight of `block` is quantized."""
    tensors = (*block.parameters(), *block.buffers())
    return any(tensor.dtype in (torch.int8, torch.uint8) for tensor in tensors)


# --- from full weights --------------------------------------------------------------------------------


def quantize(block: nn.Module, kind: str, device: torch.device | str) -> None:
    """Replace the matrices of `block`'s linear layers and experts by quantized ones, and move it to `device`.

    All other weights stay as they are. Raises ConfigError if bitsandbytes does not run here.
    """
    functional = _load_bitsandbytes().functional
    quantized = _to_int8 if kind == "int8" else _to_nf4
    for name, linear in list(block.named_modules()):
        if is_quantizable(linear, kind):
            full = matrix_of(linear)
            matrix = quantized(functional, full, device)
            block.set_submodule(name, _layer(matrix, bias_of(linear), device, OUTLIER, full.dtype))
    quantize_experts(block, kind, device)
    block.to(device)


def _to_int8(functional: Any, matrix: Tensor, device: torch.device | str) -> Int8Matrix:
    parts = [functional.int8_vectorwise_quant(part.half().to(device)) for part in row_slices(matrix)]
    codes, scales, _ = zip(*parts, strict=True)
    return Int8Matrix(torch.cat(codes), torch.cat(scales))


def _to_nf4(functional: Any, matrix: Tensor, device: torch.device | str) -> Nf4Matrix:
    """Quantize the scales as well, unless the kernel that will run wants them plain."""
    settings = {"blocksize": BLOCK_SIZE, "compress_statistics": False, "quant_type": "nf4"}
    parts = [functional.quantize_4bit(part.to(device), **settings) for part in row_slices(matrix)]
    codes = torch.cat([packed for packed, _ in parts]).flatten()
    absmax, nested = torch.cat([state.absmax for _, state in parts]), None
    shape = (matrix.shape[0], matrix.shape[1])
    if not is_fused(shape, BLOCK_SIZE):
        offset = absmax.mean()
        absmax, outer = functional.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
        nested = Nested(outer.absmax, outer.code, float(offset))
    return Nf4Matrix(shape, codes, absmax, BLOCK_SIZE, nested)


# --- as the checkpoint has them -----------------------------------------------------------------------


def place_stored(
    model: nn.Module, name: str, matrix: StoredMatrix, stored: Stored, device: torch.device | str
) -> None:
    """Replace the linear layer whose weight is called `name` by one that runs `matrix` as it is stored.

    Its bias must be in place. Raises ConfigError if there is no linear layer of that name, or if bitsandbytes
    does not run here.
    """
    owner, _, _ = name.rpartition(".")
    linear = model.get_submodule(owner)
    if not is_linear(linear):
        raise ConfigError(f"{name} is stored quantized and is no linear layer here; choose another model")
    compute_dtype = _compute_dtype(stored, linear, device)
    made = _layer(matrix, bias_of(linear), device, stored.threshold, compute_dtype)
    model.set_submodule(owner, made)


def _packed(bitsandbytes: Any, matrix: Nf4Matrix) -> Any:
    """A matrix as bitsandbytes has it in memory."""
    make_state, nested, offset, inner = bitsandbytes.functional.QuantState, matrix.nested, None, None
    if nested is not None:
        offset = torch.tensor(nested.offset)
        inner = make_state(nested.absmax, code=nested.code, blocksize=NESTED_BLOCK, dtype=torch.float32)
    state = make_state(
        matrix.absmax,
        shape=torch.Size(matrix.shape),
        code=torch.tensor(NF4_CODE),
        blocksize=matrix.block_size,
        quant_type="nf4",
        dtype=torch.float32,
        offset=offset,
        state2=inner,
    )
    return bitsandbytes.nn.Params4bit(
        matrix.codes[:, None],
        quant_state=state,
        blocksize=matrix.block_size,
        compress_statistics=nested is not None,
        quant_type="nf4",
        bnb_quantized=True,
    )


def _compute_dtype(stored: Stored, linear: nn.Module, device: torch.device | str) -> torch.dtype:
    """What the checkpoint asks for; CPUs compute badly in fp16, so there in the dtype of the blocks."""
    asked: torch.dtype = getattr(torch, stored.compute_dtype)
    if asked == torch.float16 and torch.device(device).type == "cpu":
        return matrix_of(linear).dtype
    return asked


# --- layers -------------------------------------------------------------------------------------------


def _layer(
    matrix: StoredMatrix,
    bias: Tensor | None,
    device: torch.device | str,
    threshold: float,
    compute_dtype: torch.dtype,
) -> nn.Module:
    """Return a linear layer that runs `matrix` on `device`."""
    bitsandbytes = _load_bitsandbytes()
    if isinstance(matrix, Nf4Matrix):
        return _nf4_layer(bitsandbytes.nn, _packed(bitsandbytes, matrix).to(device), bias, compute_dtype)
    codes = bitsandbytes.nn.Int8Params(matrix.codes, requires_grad=False, SCB=matrix.scales)
    return _int8_layer(codes.to(device), bias, threshold)


@functools.cache
def _int8_class() -> type[nn.Module]:
    """bitsandbytes' layer, which takes inputs of two or three dimensions, for those of any number."""
    layers = _load_bitsandbytes().nn

    class Int8Linear(layers.Linear8bitLt):  # type: ignore[misc, name-defined]
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = super().forward(inputs.reshape(-1, inputs.shape[-1]))
            return outputs.view(*inputs.shape[:-1], -1)

    return Int8Linear


def _int8_layer(codes: Any, bias: Tensor | None, threshold: float) -> nn.Module:
    rows, columns = codes.shape
    made: Any = _int8_class()(
        columns, rows, bias is not None, has_fp16_weights=False, threshold=threshold, device="meta"
    )
    made.weight, made.bias = codes, bias
    made.init_8bit_state()
    # The very parameter: a model that shares its parameters with another then shares this as well.
    made.state.CB = made.weight
    layer: nn.Module = made.eval()
    return layer


def _nf4_layer(layers: Any, weight: Any, bias: Tensor | None, compute_dtype: torch.dtype) -> nn.Module:
    state = weight.quant_state
    rows, columns = state.shape
    made = layers.Linear4bit(
        columns, rows, bias is not None, compute_dtype=compute_dtype, quant_type="nf4", device="meta"
    )
    made.weight, made.bias = weight, bias
    made.support_avx512bf16_for_cpu = is_fused((rows, columns), state.blocksize)
    if weight.device.type == "cpu":
        with torch.no_grad():  # packs the weights for the fused kernel: now, not in the first step
            made.eval()(torch.zeros(1, columns, dtype=compute_dtype))
    layer: nn.Module = made.eval()
    return layer


def is_fused(shape: tuple[int, int], block_size: int = BLOCK_SIZE) -> bool:
    """Whether the kernel for CPUs with bf16 instructions runs this matrix; bitsandbytes itself only tries."""
    rows, columns = shape
    fits = rows % FUSED_ROWS == 0 and columns % block_size == 0
    return fits and bool(_load_bitsandbytes().functional.has_avx512bf16())


# --- the library --------------------------------------------------------------------------------------


def _load_bitsandbytes() -> Any:
    """Import bitsandbytes. Raises ConfigError if it does not run on this machine."""
    try:
        with _without_code_of_others():
            import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError("bitsandbytes does not run here; leave --quantization out") from error
    # It says at every step of every layer that LLM.int8() computes in fp16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    return bitsandbytes


@contextmanager
def _without_code_of_others() -> Iterator[None]:
    """Import without `kernels`: with it, bitsandbytes fetches native code from the Hub, and runs it.

    It complains that it is not there.
    """
    if "bitsandbytes" in sys.modules:
        yield
        return
    kernels, complaints = sys.modules.get("kernels"), logging.getLogger("bitsandbytes.backends.cpu.ops")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    complaints.disabled = True
    try:
        yield
    finally:
        complaints.disabled = False
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
