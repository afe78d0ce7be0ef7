"""From a checkpoint's tensors to a model's parameters, by the rules that transformers itself uses.

Names in a checkpoint are not the names of modules: experts stored one by one become one fused parameter,
old names are renamed, the prefix of the base model comes and goes. transformers describes this as data
(`conversion_mapping`), and `core_model_loading` applies it to a whole model; here the same rules are
applied to the tensors of some blocks.
"""

import copy
import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)
from transformers.pytorch_utils import Conv1D

from swarm.checkpoint.prequantized import StoredMatrix, parse_matrix, split_part, stored_of
from swarm.checkpoint.skeleton import MALFORMED, Skeleton
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

OLD_BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"attn\.(masked_)?bias$")
"""Tensors of old checkpoints that models now compute by themselves."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint's tensor goes: a parameter, and the rule's pattern if more than its name changes.

    `part` says which part of a matrix that is stored quantized it is; None if it is no part of one.
    """

    name: str
    pattern: str | None
    part: str | None = None


class Conversion:
    """Which tensor of a checkpoint belongs where in a skeleton, and how to convert some of them.

    The skeleton must be whole when this is made; later its foreign blocks may be replaced.
    """

    def __init__(self, skeleton: Skeleton, names: Collection[str]) -> None:
        self._model = skeleton.model
        self._layers_name = skeleton.layers_name
        self.parameters = {
            name: (tensor.shape, tensor.dtype) for name, tensor in self._model.state_dict().items()
        }
        rules = get_model_conversion_mapping(self._model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._rule_of = {pattern: rule for rule in self._converters for pattern in rule.source_patterns}
        self.stored = stored_of(self._model.config)
        self._merged: set[str] = set()
        self._targets = self._find_targets(names)
        self._transposed = {
            f"{name}.weight" for name, module in self._model.named_modules() if isinstance(module, Conv1D)
        }
        self._fp32 = _compile((*(self._model._keep_in_fp32_modules_strict or ()),))
        self._may_be_left_over = _compile(
            (*(self._model._keys_to_ignore_on_load_unexpected or ()), *OLD_BUFFERS)
        )
        self._may_be_missing = _compile((*(self._model._keys_to_ignore_on_load_missing or ()),))

    def block_names(self, index: int) -> tuple[str, ...]:
        """Name the checkpoint's tensors of block `index`."""
        return tuple(name for name, target in self._targets.items() if self._block_of(target.name) == index)

    def end_names(self) -> tuple[str, ...]:
        """Name the checkpoint's tensors that become parameters outside of the blocks."""
        return tuple(
            name
            for name, target in self._targets.items()
            if target.name in self.parameters and self._block_of(target.name) is None
        )

    def block_parameters(self, index: int) -> frozenset[str]:
        """Name the parameters of block `index`."""
        return frozenset(name for name in self.parameters if self._block_of(name) == index)

    def end_parameters(self) -> frozenset[str]:
        """Name the parameters outside of the blocks."""
        return frozenset(name for name in self.parameters if self._block_of(name) is None)

    def unknown_names(self) -> tuple[str, ...]:
        """Name the checkpoint's tensors that the model has no place for, outside of its blocks."""
        return tuple(
            name
            for name, target in self._targets.items()
            if target.name not in self.parameters and self._block_of(target.name) is None
        )

    def stored_parts(self) -> dict[str, frozenset[str]]:
        """Name the parameters that are stored quantized, and for each the parts that the checkpoint has."""
        found: dict[str, set[str]] = {}
        for target in self._targets.values():
            if target.part is not None:
                found.setdefault(target.name, set()).add(target.part)
        return {name: frozenset(parts) for name, parts in found.items()}

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of parameter `name`, of a linear layer's as [out, in]; () if there is none."""
        shape, _ = self.parameters.get(name, ((), None))
        return tuple(reversed(shape) if name in self._transposed else shape)

    def take_stored(self, tensors: dict[str, Tensor]) -> dict[str, StoredMatrix]:
        """Take from `tensors`, by the checkpoint's names, all parts of quantized matrices.

        Returns the matrices by the model's names. Raises ConfigError if one is not whole, of the wrong shape,
        or in a place where the model has no such matrix.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for name in [name for name in tensors if self._targets[name].part is not None]:
            target = self._targets[name]
            parts.setdefault(target.name, {})[target.part or ""] = tensors.pop(name)
        return {name: self._join(name, found) for name, found in parts.items()}

    def _join(self, name: str, parts: Mapping[str, Tensor]) -> StoredMatrix:
        if self.stored is None or name not in self.parameters or name in self._merged:
            raise ConfigError(
                f"the checkpoint stores {name} quantized, where a {self._model.config.model_type} of this"
                " transformers has no such matrix; take the original weights and use --quantization instead"
            )
        return parse_matrix(name, self.stored.kind, self.shape_of(name), parts)

    def convert(
        self, tensors: Mapping[str, Tensor], expected: Collection[str], may_miss: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Turn tensors of the checkpoint, by its names, into the parameters `expected`, by the model's names.

        Tensors that are allowed to be left over are named in the log, matrices that are stored quantized are
        dequantized. Raises ConfigError for any other left-over, for parameters that stay empty though not in
        `may_miss`, and for wrong shapes.
        """
        tensors = dict(tensors)
        stored = {name: matrix.dequantize() for name, matrix in self.take_stored(tensors).items()}
        parameters, rules = self._group(tensors)
        parameters |= {name: _turned(it, name in self._transposed) for name, it in stored.items()}
        for name, rule in rules.items():
            parameters.update(self._apply(name, rule))
        for name in [name for name in parameters if name not in expected]:
            self._check_leftover(name)
            del parameters[name]
        missing = sorted(
            name
            for name in expected
            if name not in {*parameters, *may_miss} and not self._may_be_missing(name)
        )
        if missing:
            raise ConfigError(
                f"the checkpoint has no tensor for {missing[0]} ({len(missing)} missing); it is incomplete,"
                " get it again"
            )
        return {name: self._cast(name, tensor) for name, tensor in parameters.items()}

    def _group(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, WeightConverter]]:
        """Divide the tensors into those that only change their names, and rules filled with all others."""
        plain: dict[str, Tensor] = {}
        rules: dict[str, WeightConverter] = {}
        for name in sorted(tensors, key=dot_natural_key):
            target = self._targets[name]
            if target.pattern is None:
                plain[target.name] = tensors[name]
                continue
            rule = rules.setdefault(target.name, copy.deepcopy(self._rule_of[target.pattern]))
            # Declared for futures; takes tensors as well, and then does not wait.
            rule.add_tensor(target.name, name, target.pattern, tensors[name])  # type: ignore[arg-type]
        return plain, rules

    def _apply(self, name: str, rule: WeightConverter) -> dict[str, Tensor]:
        try:
            converted = rule.convert(name, model=self._model, config=self._model.config)
        except MALFORMED as error:
            raise ConfigError(
                f"the tensors for {name} do not fit together; the checkpoint is damaged, get it again"
            ) from error
        return {name: value[0] if isinstance(value, list) else value for name, value in converted.items()}

    def _cast(self, name: str, tensor: Tensor) -> Tensor:
        shape, dtype = self.parameters[name]
        if tensor.shape != shape:
            raise ConfigError(
                f"the tensor for {name} has shape {list(tensor.shape)}, config.json asks for {list(shape)};"
                " config and weights belong to different models, get both again"
            )
        if dtype.is_floating_point and not tensor.dtype.is_floating_point:
            raise ConfigError(
                f"the tensor for {name} holds {str(tensor.dtype).removeprefix('torch.')} without what tells"
                " its scale; the checkpoint is damaged, get it again"
            )
        if self._fp32(name) and dtype.is_floating_point:
            dtype = torch.float32
        return tensor.to(dtype).contiguous()

    def _check_leftover(self, name: str) -> None:
        if not self._may_be_left_over(name):
            raise ConfigError(
                f"the checkpoint's tensor {name} has no place in a {self._model.config.model_type};"
                " its config.json belongs to another model, get it again"
            )
        logger.info("skipped %s: the model computes it by itself", name)

    def _find_targets(self, names: Collection[str]) -> dict[str, Target]:
        # In this order: some rules depend on what they have seen before.
        ordered = sorted(names, key=dot_natural_key)
        split = {name: split_part(name, self.stored.kind) for name in ordered} if self.stored else {}
        parts = {name: part for name, part in split.items() if part is not None}
        targets = {name: self._find_target(name) for name in ordered if name not in parts}
        for name, (weight, part) in parts.items():
            of = targets.get(weight, Target(weight, None))
            if of.pattern is not None:
                self._merged.add(of.name)
            targets[name] = Target(of.name, None, part)
            targets[weight] = Target(of.name, None, "weight")
        return {name: targets[name] for name in ordered}

    def _find_target(self, name: str) -> Target:
        prefix = self._model.base_model_prefix
        renamed, pattern = rename_source_key(name, self._renamings, self._converters, prefix, self.parameters)
        if renamed not in self.parameters and name in self.parameters:
            renamed, pattern = rename_source_key(name, [], [], prefix, self.parameters)
        return Target(renamed, pattern)

    def _block_of(self, name: str) -> int | None:
        """Return the index of the block that a parameter, or a leftover named like one, belongs to."""
        for prefix in (
            self._layers_name,
            self._layers_name.removeprefix(f"{self._model.base_model_prefix}."),
        ):
            if name.startswith(f"{prefix}."):
                index = name[len(prefix) + 1 :].partition(".")[0]
                return int(index) if index.isdecimal() else None
        return None


def assign(model: nn.Module, parameters: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
    """Put tensors into a model, by name, as they are."""
    for name, tensor in parameters.items():
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor.to(device)
        else:
            owner._parameters[leaf] = nn.Parameter(tensor.to(device), requires_grad=False)


def _turned(matrix: Tensor, is_transposed: bool) -> Tensor:
    return matrix.T if is_transposed else matrix


def _compile(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a test whether any of `patterns` occurs in a name."""
    expression = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
    return lambda name: expression is not None and expression.search(name) is not None
