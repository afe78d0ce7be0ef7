"""Families whose attention does not go through transformers' attention interface: one file each.

Nothing else under server/ names a family. An adapter puts our attention into a block in place of the
family's own and leaves the weights where they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to make a family's blocks use `server.attention`."""

    adapt: Callable[[nn.Module], None]
    """Change a block, in place, to attend through the running batch."""
    restore: Callable[[nn.Module], None]
    """Undo `adapt`: the block is transformers' own again."""
    returns_tuple: bool = False
    """Whether the family's blocks return (hidden, ...) and not hidden states alone."""
    stock_attention: str = "eager"
    """Which of transformers' implementations is the family's own."""


def find_adapter(model_type: str) -> Adapter | None:
    """Return the adapter of a family, by transformers' `model_type`; None if it needs none (or has none)."""
    if model_type == "bloom":
        from server.adapters import bloom  # here: a server imports only the family that it hosts

        return bloom.ADAPTER
    if model_type == "falcon":
        from server.adapters import falcon

        return falcon.ADAPTER
    return None
