"""Which weights of a block are matrices: those of linear layers, and of heirs of theirs, and of experts."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from swarm.checkpoint.skeleton import MALFORMED


def is_quantizable(module: nn.Module, kind: str) -> bool:
    """Whether this is a linear layer whose matrix can be quantized; nf4 packs two weights of a row."""
    return is_linear(module) and (kind == "int8" or matrix_of(module).shape[1] % 2 == 0)


def is_linear(module: nn.Module) -> bool:
    """Whether `module` computes what `nn.Linear` computes, from a matrix and perhaps a bias."""
    kind: Any = type(module)
    return isinstance(module, Conv1D) or _is_linear_class(kind)


@functools.cache
def _is_linear_class(kind: type[Any]) -> bool:
    """Whether modules of this class compute what `nn.Linear` computes: some heirs of it return more."""
    if kind is nn.Linear:
        return True
    if not issubclass(kind, nn.Linear) or kind.__init__ is not nn.Linear.__init__:
        return False
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        probe, inputs = kind(5, 7), torch.linspace(-1, 1, 10).view(1, 2, 5)
        try:
            return torch.allclose(probe(inputs), nn.Linear.forward(probe, inputs))
        except MALFORMED:
            return False


def matrix_of(linear: nn.Module) -> Tensor:
    """The weights of a linear layer as [out, in]: one kind of layer keeps them the other way round."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.data.T if isinstance(linear, Conv1D) else weight.data


def bias_of(linear: nn.Module) -> nn.Parameter | None:
    """The bias [out] of a linear layer, if it has one."""
    bias = linear.bias
    assert bias is None or isinstance(bias, nn.Parameter)
    return bias


def stacks_of(block: nn.Module, kind: str) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield all stacks that can be quantized: the module that has one, its name there, the parameter."""
    for module in block.modules():
        if not _runs_by_interface(module):
            continue
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.dim() == 3 and (kind == "int8" or parameter.shape[2] % 2 == 0):
                yield module, name, parameter


def _runs_by_interface(module: nn.Module) -> bool:
    """Whether transformers' interface for experts runs this module: it leaves these marks on it."""
    return all(hasattr(module, mark) for mark in ("config", "has_gate", "is_transposed", "is_concatenated"))
