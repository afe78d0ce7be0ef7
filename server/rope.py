"""Rotary frequencies that change with the length of a sequence, made each token's own.

In transformers `dynamic` rope rescales by the longest sequence of the batch, and remembers it: another
session would change ours. Here a token at position p is rotated as transformers rotates it when a lone
session has come to p token by token with its cache, which is also how `generate` comes to every token that it
writes itself. Tokens before the original length are thus as in any pass of transformers. Beyond it, what
transformers gives for several tokens at once depends on how they are cut into passes; ours does not, so that
chunks, replays and batches change nothing.

`longrope` stays limited to the original length. Beyond it families rotate *all* tokens by other frequencies,
also those before it, and compute their cache again when a session gets there; what is cached here could not
follow, and a mixture of both is what no model was trained for.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig


class TokenRope(nn.Module):
    """A family's rotary module, asked about each token beyond the original length alone."""

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        self.stock = stock
        self._original = int(stock.original_max_seq_len)  # type: ignore[arg-type]

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock module returns for `position_ids` `[1, tokens]`."""
        output = self.stock(x, position_ids.clamp(max=self._original - 1), *args, **kwargs)
        for token in (position_ids[0] >= self._original).nonzero().flatten().tolist():
            alone = self._fresh()(x, position_ids[:, token : token + 1], *args, **kwargs)
            for all_tokens, own in zip(_tensors(output), _tensors(alone), strict=True):
                all_tokens[:, token] = own[:, 0]
        return output

    def _fresh(self) -> nn.Module:
        """Return a stock module that has seen no sequence yet."""
        config = getattr(self.stock, "config", None)
        return copy.deepcopy(self.stock, {id(config): config})


def steady_rope(model: nn.Module) -> None:
    """Replace the rotary modules of `model` that depend on the longest sequence of a batch."""
    for name, module in list(model.named_modules()):
        if "dynamic" in str(getattr(module, "rope_type", "")) and hasattr(module, "original_max_seq_len"):
            model.set_submodule(name, TokenRope(module))


def steady_positions(config: PretrainedConfig) -> int | None:
    """Return the length up to which rope is the same for every session; None if it always is."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [kind for kind in rope.values() if isinstance(kind, dict)]
    limits = [
        int(kind.get("original_max_position_embeddings") or config.max_position_embeddings)
        for kind in nested or [rope]
        if "longrope" in str(kind.get("rope_type"))
    ]
    return min(limits, default=None)


def _tensors(output: Any) -> Iterator[Tensor]:
    yield from (output,) if isinstance(output, torch.Tensor) else output
