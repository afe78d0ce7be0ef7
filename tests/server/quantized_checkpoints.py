"""Checkpoints in bitsandbytes' formats, as transformers itself saves them, and damaged ones."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tests.swarm.checkpoints import save_random_model

_USUAL: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "vocab_size": 128}
WIDE: dict[str, dict[str, Any]] = {
    "llama": _USUAL,
    "qwen3": _USUAL,
    "gemma2": _USUAL,
    "mixtral": _USUAL,
    "bloom": {"hidden_size": 64},
    "gpt2": {"n_embd": 64},
}
"""Sizes that bitsandbytes can run on every processor: whole scales in a row, rows by 32."""

FORMATS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "int8-low-threshold": {"load_in_8bit": True, "llm_int8_threshold": 0.5},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "nf4-in-bf16": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_quant_storage": "bfloat16",
    },
}


def save_quantized(folder: Path, family: str = "llama", stored: str = "int8", **skipping: Any) -> Path:
    """Write a random model of `family`, quantized by transformers in one of FORMATS; return its directory."""
    full, path = folder / "full", folder / stored
    save_random_model(full, family, **WIDE[family])
    config = BitsAndBytesConfig(**FORMATS[stored], **skipping)  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(
        full, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(path)
    return path


def load_by_transformers(path: Path) -> PreTrainedModel:
    """Load the same checkpoint the usual way, in fp32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, device_map="cpu")
    return model


def change_tensors(folder: Path, changes: dict[str, Tensor | None]) -> None:
    """Replace tensors of a single-file checkpoint by name; None removes one."""
    tensors = load_file(folder / "model.safetensors") | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


torch.set_num_threads(1)  # models this small are six times slower where threads wait for one another
