"""What a bot tells others about a block's size is what their servers will find, or a little more."""

from pathlib import Path

import pytest

from swarm.checkpoint import open_checkpoint
from swarm.checkpoint.block_sizes import block_size
from tests.swarm.checkpoints import save_random_model


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_without_a_machine_in_mind_a_block_takes_the_most_that_it_does_anywhere(
    tmp_path: Path, quantization: str
) -> None:
    save_random_model(tmp_path, hidden_size=256, intermediate_size=768)
    checkpoint = open_checkpoint(str(tmp_path))
    known = [
        block_size(checkpoint, "fp32", quantization, is_fused=lambda shape, fused=fused: fused)  # type: ignore[misc]
        for fused in (True, False)
    ]
    largest = max(size.weight_bytes for size in known)
    told = block_size(checkpoint, "fp32", quantization)
    assert largest <= told.weight_bytes < 1.01 * largest
    assert {size.kv_bytes_per_token for size in known} == {told.kv_bytes_per_token}
    assert checkpoint.bytes_read == 0
