"""Hidden states as the replay logs see them: something that has bytes and can be joined."""

import torch


class TensorOperations:
    """Payloads of the replay logs are tensors `[tokens, hidden]`."""

    def num_bytes(self, payload: torch.Tensor) -> int:
        return payload.numel() * payload.element_size()

    def join(self, payloads: list[torch.Tensor]) -> torch.Tensor:
        return payloads[0] if len(payloads) == 1 else torch.cat(payloads)
