"""Throughput: medians of a short run, remembered per setup, never a reason to fail."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from server.throughput import MAX_AGE_S, Setup, Throughput, measure_throughput, recall_throughput

SETUP = Setup("f" * 32, 4, "cpu", "float32", "none", "2.13")
FAST = Throughput(1000.0, 50.0)


class FakeMachine:
    """Takes 10 ms for a step and 1 ms more for each token; every fifth run is disturbed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: list[int] = []

    def run(self, num_tokens: int) -> None:
        self.runs.append(num_tokens)
        self.now += 0.01 + 0.001 * num_tokens + (1.0 if len(self.runs) % 5 == 0 else 0.0)

    def clock(self) -> float:
        return self.now


def test_medians_ignore_the_warm_up_and_disturbances() -> None:
    machine = FakeMachine()
    measured = measure_throughput(machine.run, 4, clock=machine.clock)
    assert measured.inference_rps == pytest.approx(4 / 0.011)
    assert measured.tokens_per_s == pytest.approx(128 / 0.138)


def test_a_quick_machine_is_measured_in_less_than_a_second() -> None:
    machine = FakeMachine()

    def run(num_tokens: int) -> None:
        machine.now += 1e-4 * num_tokens

    measure_throughput(run, 4, clock=machine.clock)
    assert machine.now < 1.0


def counted(results: list[Throughput], calls: list[int]) -> Throughput:
    calls.append(1)
    return results[len(calls) - 1]


def test_a_measurement_is_remembered_for_its_setup_and_for_a_while(tmp_path: Path) -> None:
    path, calls, now = tmp_path / "deep" / "throughput.json", list[int](), 1000.0
    results = [FAST, Throughput(2.0, 2.0), Throughput(3.0, 3.0)]

    def recall(setup: Setup, at: float) -> Throughput:
        return recall_throughput(path, setup, lambda: counted(results, calls), now=lambda: at)

    assert recall(SETUP, now) == recall(SETUP, now + 100) == FAST
    assert recall(replace(SETUP, torch_version="2.14"), now).tokens_per_s == 2.0
    assert recall(SETUP, now + 200) == FAST
    assert recall(SETUP, now + MAX_AGE_S).tokens_per_s == 3.0
    assert len(calls) == 3
    assert len(json.loads(path.read_text())) == 1  # outdated ones are dropped


@pytest.mark.parametrize("text", ["", "[]", "{]", '{"a": 5}', '{"a": {"tokens_per_s": "x"}}'])
def test_a_damaged_file_only_costs_the_measurement(tmp_path: Path, text: str) -> None:
    path = tmp_path / "throughput.json"
    path.write_text(text)
    assert recall_throughput(path, SETUP, lambda: FAST) == FAST
    assert recall_throughput(path, SETUP, lambda: Throughput(0.0, 0.0)) == FAST


def test_a_place_that_cannot_be_written_only_costs_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert recall_throughput(tmp_path / "file" / "throughput.json", SETUP, lambda: FAST) == FAST
