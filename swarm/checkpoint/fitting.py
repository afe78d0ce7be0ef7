"""How many blocks fit into a machine's memory: what a server asks of its own, and a bot for others. Pure."""

from dataclasses import dataclass

DEFAULT_KV_TOKENS = 16_384
"""Of all sessions, in each block, where nobody says otherwise."""
SPARE_BYTES = 1 << 30
"""Left for activations, the ends of a batch, and what else runs on the machine."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """What one block takes: its largest weights, and its KV cache per token."""

    weight_bytes: int
    kv_bytes_per_token: int

    def bytes_with(self, cache_tokens: int) -> int:
        """What it takes together with room for so many tokens."""
        return self.weight_bytes + self.kv_bytes_per_token * cache_tokens


def plan_num_blocks(free_bytes: int, size: BlockSize, cache_tokens: int, num_blocks: int) -> int:
    """How many blocks fit into `free_bytes` with `cache_tokens` of KV cache each; at most `num_blocks`.

    A tenth of the memory, and 1 GiB at most, stays free. For example 8 GiB free, blocks of 400 MiB and 4 KiB
    * 16,384 tokens = 64 MiB of cache: (8 - 0.8) GiB / 464 MiB = 15. 0 if not even one fits.
    """
    usable = free_bytes - min(free_bytes // 10, SPARE_BYTES)
    return max(0, min(num_blocks, usable // size.bytes_with(cache_tokens)))
