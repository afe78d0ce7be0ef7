"""The goal of the decode step, measured by the bench itself: context costs next to nothing."""

import json
import os
import subprocess
import sys

import pytest

BENCH_S = 240.0  # it takes 20 s on two cores


@pytest.mark.slow
@pytest.mark.timeout(BENCH_S + 10)
def test_a_decode_step_after_1000_tokens_costs_at_most_a_fifth_more_than_after_10() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "decode-context", "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=BENCH_S,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["ratio"] <= 1.2, found
    assert (found["goal"], found["is_met"], done.returncode) == ("<= 1.2", True, 0)
