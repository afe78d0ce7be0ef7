"""Small random models as checkpoint directories: same seed, same weights, on every machine.

`make_model(directory, "llama")` writes a safetensors checkpoint and returns its path. Keyword arguments
override the configuration. Weights are drawn wide: attention matters, and the best token leads clearly.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

SEED = 7
VOCABULARY = 211

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _SMALL | {"rope_parameters": _LLAMA3_ROPE}),
    "llama-tied": ("llama", _SMALL | {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", _SMALL | {"head_dim": 16}),
    "bloom": (
        "bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "n_layer": 6,
            "n_head": 4,
            "initializer_range": 0.15,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
        },
    ),
}
FAMILIES = tuple(_FAMILIES)


def make_config(family: str, **overrides: Any) -> PretrainedConfig:
    """Return the configuration of a small model of `family`, one of FAMILIES or a transformers model type."""
    model_type, settings = _FAMILIES.get(family, (family, _SMALL))
    config: PretrainedConfig = AutoConfig.for_model(model_type, **(settings | overrides))
    return config


def random_model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a causal language model with random weights drawn from SEED, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation="eager", dtype=torch.float32
        )
    model.to(dtype)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    return model


def random_base(config: PretrainedConfig) -> PreTrainedModel:
    """Return what `random_model` returns, without the head."""
    base = random_model(config).base_model
    assert isinstance(base, PreTrainedModel)
    return base


def make_model(
    directory: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "50GB",
    **overrides: Any,
) -> Path:
    """Write a small random model of `family` as safetensors under `directory`; return its own directory.

    It is one file; several with an index if it is larger than `max_shard_size`.
    """
    path = directory / family
    model = random_model(make_config(family, **overrides), dtype)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    return path
