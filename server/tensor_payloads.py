"""Hidden states as the replay logs see them: something that has bytes and can be joined."""

from typing import Any

import torch


class TensorOperations:
    """Payloads of the replay logs are tensors `[tokens, hidden]`."""

    def num_bytes(self, payload: torch.Tensor) -> int:
        return payload.numel() * payload.element_size()

    def join(self, payloads: list[torch.Tensor]) -> torch.Tensor:
        return payloads[0] if len(payloads) == 1 else torch.cat(payloads)

    def first(self, payload: torch.Tensor, num_tokens: int) -> torch.Tensor:
        return payload[:num_tokens].clone()


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether all of it are numbers. One pass and no copy, as nothing of torch's own is."""
    if not tensor.numel():
        return True
    least, most = torch.aminmax(tensor)
    return bool(torch.isfinite(least) and torch.isfinite(most))


def is_hidden(tensors: tuple[Any, ...], num_tokens: int, hidden_size: int) -> bool:
    """Tell whether `tensors` are the hidden states that a step of `num_tokens` must carry."""
    if len(tensors) != 1 or tensors[0].dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    return tuple(tensors[0].shape) == (num_tokens, hidden_size)
