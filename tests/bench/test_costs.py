"""What a server, a step and a context cost, measured by the benches themselves."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

BENCH_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BENCH_S + 10)]


def measured(name: str, pairs: int) -> dict[str, Any]:
    """What `./murmur bench NAME --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--json", "--pairs", str(pairs)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=BENCH_S,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_long_context_costs_a_step_what_attention_costs_and_hardly_more() -> None:
    found = measured("context", 10)
    assert found["ratio"] <= 1.3, found


def test_a_step_of_one_of_many_sessions_costs_the_host_no_more_than_that_of_one_alone() -> None:
    found = measured("host", 5)
    assert found["ratio"] <= 1.1, found


def test_a_server_is_two_processes_and_takes_little_memory_beside_its_weights() -> None:
    found = measured("server", 2)
    assert found["processes"] == 2, found
    assert found["memory_above_weights_mb"] <= 600, found
