"""Rotary frequencies that change with the length of a sequence, made each token's own.

In transformers `dynamic` rope rescales by the longest sequence of the batch, and remembers it: another
session would change ours. Here a token at position p is rotated as transformers rotates it when a lone
session has come to p token by token with its cache, which is also how `generate` comes to every token that it
writes itself. Tokens before the original length are thus as in any pass of transformers. Beyond it, what
transformers gives for several tokens at once depends on how they are cut into passes; ours does not, so that
chunks, replays and batches change nothing.

`longrope` rotates all tokens of a sequence beyond the original length by other frequencies. Which of the two
a session gets, its client says, and says it anew before the session grows across that length: then nothing
of its cache is kept.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from server.attention import current_batch
from swarm.checkpoint.rope_lengths import short_positions


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


class LongRope(nn.Module):
    """A family's rotary module, asked twice: for sessions within the original length, and for long ones."""

    def __init__(self, stock: nn.Module, short_positions: int) -> None:
        super().__init__()
        self.stock = stock
        self._short_positions = short_positions

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the stock module returns for `position_ids` `[1, tokens]` of the running batch."""
        longest = self._short_positions
        output = self.stock(x, position_ids.clamp(max=longest - 1), *args, **kwargs)
        rows = current_batch().long_rows.to(position_ids.device)
        if rows.numel():
            beyond = position_ids.new_full((1, 1), longest)
            long = self.stock(x, torch.cat((position_ids[:, rows], beyond), 1), *args, **kwargs)
            for all_tokens, own in zip(_tensors(output), _tensors(long), strict=True):
                all_tokens[:, rows] = own[:, :-1]
        return output


def steady_rope(model: PreTrainedModel) -> None:
    """Replace the rotary modules of `model` that depend on the longest sequence of a batch."""
    longest = short_positions(model.config)
    for name, module in list(model.named_modules()):
        kind = str(getattr(module, "rope_type", ""))
        if "longrope" in kind and longest is not None:
            model.set_submodule(name, LongRope(module, longest))
        elif "dynamic" in kind and hasattr(module, "original_max_seq_len"):
            model.set_submodule(name, TokenRope(module))


def _tensors(output: Any) -> Iterator[Tensor]:
    yield from (output,) if isinstance(output, torch.Tensor) else output
