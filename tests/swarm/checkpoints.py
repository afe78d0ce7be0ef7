"""Small random checkpoints on disk, and damaged ones."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

NUM_BLOCKS = 4
VOCABULARY = 99

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_OLD_WORDS: dict[str, Any] = {"n_layer": NUM_BLOCKS, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "llama-tied": _COMMON | {"model_type": "llama", "tie_word_embeddings": True},
    "qwen3": _COMMON | {"head_dim": 8},
    "gemma2": _COMMON | {"head_dim": 8},
    "cohere": _COMMON,
    "mixtral": _COMMON | {"num_local_experts": 4},
    "bloom": _OLD_WORDS | {"vocab_size": VOCABULARY, "hidden_size": 32},
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": NUM_BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    },
    "falcon": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": NUM_BLOCKS,
        "num_attention_heads": 4,
    },
    "gpt2": _OLD_WORDS | {"vocab_size": VOCABULARY, "n_embd": 32, "n_positions": 64},
}


def save_random_model(
    folder: Path, family: str = "llama", max_shard_size: str = "50GB", **changes: Any
) -> PreTrainedModel:
    """Write a random model of `family` to `folder`; return it, in fp32 and ready to run."""
    config = AutoConfig.for_model(**({"model_type": family} | FAMILIES[family] | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        for (
            parameter
        ) in model.parameters():  # fresh norms and biases are all ones or zeros: any mix-up would pass
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.train(False).requires_grad_(False)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


def run_and_record(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Run `ids` [1, n]; return what entered the first block, what left each (all [1, n, hidden]), logits."""
    blocks = next(
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == NUM_BLOCKS
    )
    entered: list[Tensor] = []
    left: list[Tensor] = []
    handles = [
        blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    ]
    for block in blocks:
        handles.append(
            block.register_forward_hook(
                lambda _, __, output: left.append(output[0] if isinstance(output, tuple) else output)
            )
        )
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return entered[0], left, logits


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_safetensors(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> None:
    """Write a file in the shape of safetensors, with whatever header and claimed length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)


def save_only_config(folder: Path) -> None:
    """Write the config.json of a model that has no weights."""
    config = {"model_type": "llama", "num_hidden_layers": NUM_BLOCKS, "hidden_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
