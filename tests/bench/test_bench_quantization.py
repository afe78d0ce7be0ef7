"""`./murmur bench quantization`: a row for each way of holding blocks, and what must hold between them."""

import pytest
import torch

from bench.quantization import WAYS, held_bytes, measure


def test_what_is_made_is_counted_once_and_what_was_there_is_not() -> None:
    there = torch.zeros(1000)
    made, taken = held_bytes(lambda: [torch.zeros(256), torch.zeros(64)])
    assert taken == 320 * 4
    views, taken = held_bytes(lambda: [(copy := made[0].clone()), copy[:10]])
    assert (len(views), taken) == (2, 256 * 4)
    assert held_bytes(lambda: float(there.sum() * 2))[1] == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_each_step_down_in_size_costs_accuracy() -> None:
    found = await measure(3)
    rows = [found.details[way] for way in WAYS]
    assert found.is_met
    assert [row["block_mb"] for row in rows] == sorted((row["block_mb"] for row in rows), reverse=True)
    for name in ("hidden_error", "kl"):
        assert [row[name] for row in rows] == sorted(row[name] for row in rows)
    assert all(row["same_token"] > 0.95 for row in rows)
    assert rows[0]["kl"] == 0.0
