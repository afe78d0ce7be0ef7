"""Which modules of a block are linear layers, and their weights: some families have heirs of their own."""

import functools
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
