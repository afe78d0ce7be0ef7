"""The family's own model without weights, and where its blocks are.

No family is named here: transformers knows the class for a config, and the blocks are the module list that
is as long as the config says. What is not a block, and what is not here, is replaced by modules that let
hidden states through.
"""

import copy
import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from swarm.checkpoint.prequantized import parse_stored
from swarm.errors import ConfigError

logger = logging.getLogger(__name__)

MALFORMED = (
    AssertionError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RuntimeError,
    ArithmeticError,
    ImportError,
)
"""What transformers raises when a config is nonsense: it promises nothing narrower."""


def parse_config(name: str, raw: dict[str, Any]) -> PretrainedConfig:
    """Return transformers' config for the content of a config.json.

    Raises ConfigError if transformers does not know the model itself, or if Murmur cannot run it, or cannot
    read the format that its weights are stored in.
    """
    model_type = raw["model_type"]
    if model_type not in CONFIG_MAPPING:
        raise ConfigError(
            f"{name} is of type {model_type[:80]!r}, which the installed transformers does not know, and"
            " Murmur runs no code that comes with a model; update transformers or choose another model"
        )
    parse_stored(name, raw.get("quantization_config"))
    try:
        config = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(raw))
    except Exception as error:
        if not isinstance(error, MALFORMED) and "Dataclass" not in type(error).__name__:
            raise
        raise ConfigError(f"config.json of {name} is malformed; get the model's own config.json") from error
    is_text_model = config.get_text_config() is config and not config.is_encoder_decoder
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or not is_text_model:
        raise ConfigError(
            f"{name} ({model_type}) is not a decoder for text alone; choose a causal language model"
        )
    return config


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device: shapes and names, no memory.

    `layers_name` is the path of the list of blocks inside `model`, for example `model.layers`.
    """

    model: PreTrainedModel
    layers_name: str

    @property
    def base(self) -> PreTrainedModel:
        """The part without the head."""
        base = self.model.base_model
        assert isinstance(base, PreTrainedModel)
        return base

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.model.get_submodule(self.layers_name)
        assert isinstance(layers, nn.ModuleList)
        return layers


def build_skeleton(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> Skeleton:
    """Build the causal model of `config` on the meta device. Raises ConfigError if that is not possible."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                copy.deepcopy(config), dtype=dtype, trust_remote_code=False
            )
    except MALFORMED as error:
        raise ConfigError(
            f"a {config.model_type} of these sizes cannot be built ({error}); get the model's own config.json"
        ) from error
    model.eval().requires_grad_(False)
    return Skeleton(model, find_layers(model, config.num_hidden_layers))


def find_layers(model: nn.Module, num_blocks: int) -> str:
    """Return the path of the list of blocks: the outermost module list with `num_blocks` entries.

    Raises ConfigError if there is none, or no outermost one.
    """
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_blocks
    ]
    outermost = [name for name in found if name.count(".") == min(other.count(".") for other in found)]
    if len(outermost) != 1:
        raise ConfigError(
            f"{type(model).__name__} does not keep its blocks in one list; Murmur cannot split this family"
        )
    return outermost[0]


class PassThrough(nn.Module):
    """Stands where a block is that another server runs: what comes in goes out.

    Some families' models expect a block to return a tensor, others a tuple that begins with it.
    """

    def __init__(self, block: nn.Module, returns_tuple: bool) -> None:
        super().__init__()
        # A model's forward may look at plain attributes of its blocks, such as their kind of attention.
        for name, value in vars(block).items():
            if (
                not name.startswith("_")
                and isinstance(value, (int, float, str, bool, type(None)))
                and name != "training"
            ):
                setattr(self, name, value)
        self.returns_tuple = returns_tuple

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor | tuple[Tensor, None]:
        return (hidden_states, None) if self.returns_tuple else hidden_states


class Neutral(nn.Module):
    """Stands where only the client has weights: hidden states go through, what is looked up adds nothing."""

    def __init__(self, stands_for: nn.Module) -> None:
        super().__init__()
        self._is_lookup = isinstance(stands_for, nn.Embedding)

    def forward(self, first: Any = None, *_: Any, **__: Any) -> Any:
        return torch.zeros(()) if self._is_lookup else first


def neutralize_ends(base: PreTrainedModel, layers: nn.ModuleList) -> None:
    """Replace every module of `base` that has weights and is in no block by one that changes nothing."""
    in_blocks = {id(module) for module in layers.modules()}
    for name, module in list(base.named_modules()):
        has_weights = next(module.parameters(recurse=False), None) is not None
        if name and has_weights and id(module) not in in_blocks:
            base.set_submodule(name, Neutral(module))


def does_block_return_tuple(base: PreTrainedModel, layers: nn.ModuleList) -> bool:
    """Find out what the family's model expects a block to return, by running it with blocks that do nothing.

    `base` must have neutral ends and its buffers in memory; `layers` is left as it was. Raises ConfigError
    if the model does something to hidden states outside of its blocks even then: such a family cannot be
    split.
    """
    blocks = list(layers)
    hidden = torch.randn(1, 3, base.config.hidden_size, generator=torch.Generator().manual_seed(0)).to(
        base.config.dtype
    )
    try:
        for returns_tuple in (False, True):
            for index, block in enumerate(blocks):
                layers[index] = PassThrough(block, returns_tuple)
            output = _run(base, hidden)
            if isinstance(output, Tensor) and torch.equal(output, hidden):
                return returns_tuple
    finally:
        for index, block in enumerate(blocks):
            layers[index] = block
    raise ConfigError(
        f"a {base.config.model_type} changes hidden states outside of its blocks; Murmur cannot split it"
    )


@torch.no_grad()
def _run(base: PreTrainedModel, hidden: Tensor) -> Any:
    try:
        return base(inputs_embeds=hidden, use_cache=False)[0]
    except MALFORMED as error:
        logger.debug("a model of blocks that do nothing fails: %s", error)
        return None


def cache_keyword(model: PreTrainedModel) -> str:
    """Name the argument by which this version of transformers gives the model its KV cache."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def restore_buffers(model: PreTrainedModel, device: torch.device | str = "cpu") -> None:
    """Give values to buffers that no checkpoint holds (rotary frequencies ...), as from_pretrained does."""
    for name, buffer in list(model.named_non_persistent_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner).register_buffer(
                leaf, torch.empty_like(buffer, device=device), persistent=False
            )
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    model.initialize_weights()  # type: ignore[no-untyped-call]


def on_meta(module: nn.Module) -> Iterator[str]:
    """Name what still has no memory."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            yield name
