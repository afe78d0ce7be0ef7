"""Random models, made on the spot: *tiny* to see overhead, *mid* where reading weights takes the time."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

SEED = 11
VOCABULARY = 512  # small: the head is the client's, and not what is measured
TINY: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MID: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}


def make_tiny(folder: Path) -> Path:
    """Write 8 blocks of hidden size 256 in fp32 under `folder`; return their directory."""
    return _make(folder / "tiny", TINY, torch.float32)


def make_mid(folder: Path) -> Path:
    """Write 16 blocks of hidden size 1024 in bf16 under `folder`; return their directory."""
    return _make(folder / "mid", MID, torch.bfloat16)


def _make(path: Path, sizes: dict[str, Any], dtype: torch.dtype) -> Path:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        **sizes,
    )
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    model.save_pretrained(path)
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")  # type: ignore[no-untyped-call]
    fast.save_pretrained(path)
    return path


def some_ids(number: int, count: int) -> list[int]:
    """Token ids that look like nothing in particular, others for every `number`."""
    chance = torch.Generator().manual_seed(number)
    return torch.randint(3, VOCABULARY, (count,), generator=chance).tolist()
