"""Which dtype a model runs in: what the person asked for, or what the checkpoint and the device suggest."""

import torch

from swarm.checkpoint.checkpoint import Checkpoint
from swarm.checkpoint.prequantized import split_part, stored_of
from swarm.errors import ConfigError

BY_NAME: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


def resolve_dtype(
    checkpoint: Checkpoint, dtype: str | torch.dtype = "auto", device: torch.device | str = "cpu"
) -> torch.dtype:
    """Return the dtype that `dtype` means; "auto" is the checkpoint's own, but bf16 for fp16 on a CPU.

    Raises ConfigError for any other word, and for fp16 on a CPU, which computes it slowly and inexactly.
    """
    if dtype == "auto":
        stored = _stored_dtype(checkpoint)
        return torch.bfloat16 if stored == torch.float16 and _is_cpu(device) else stored
    resolved = BY_NAME.get(str(dtype).removeprefix("torch."))
    if resolved is None:
        raise ConfigError(f"{dtype!r} is not a dtype that blocks run in; use auto, fp32 or bf16")
    if resolved == torch.float16 and _is_cpu(device):
        raise ConfigError("fp16 does not run well on a CPU; use bf16 or fp32")
    return resolved


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    named = checkpoint.config.dtype
    if named is None:
        names = checkpoint.block_tensor_names(0)
        if not names:
            kind = checkpoint.config.model_type
            raise ConfigError(
                f"{checkpoint.name} has no tensors for block 0 of a {kind} model; choose another model"
            )
        named = next(filter(None, (_plain_dtype(checkpoint, name) for name in names)), None)
    return BY_NAME.get(str(named).removeprefix("torch."), torch.float32)


def _plain_dtype(checkpoint: Checkpoint, name: str) -> str | None:
    """The dtype of a tensor that is no part of a quantized matrix."""
    stored = stored_of(checkpoint.config)
    is_part = stored is not None and split_part(name, stored.kind) is not None
    dtype = checkpoint.stored_dtype(name)
    return None if is_part or dtype not in BY_NAME else dtype


def _is_cpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cpu"
