"""`./murmur bench` itself: what it refuses, prints and draws, and one measurement in earnest."""

import importlib
import inspect
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from bench.__main__ import BENCHES, main
from bench.gpu import measure_on, measure_others
from bench.models import MID
from bench.page import write_page
from bench.report import Found, found, medians

FAST, SLOW = (
    found("fast", "new / old", [(1.0, 5.0), (1.0, 7.0), (2.0, 12.0)], 5.0, pairs_per_s=3),
    found("slow", "new / old", [(1.0, 1.5), (1.0, 1.4)], 1.2, is_least=False),
)


def test_a_result_is_the_median_of_its_pairs_and_knows_whether_its_goal_is_met() -> None:
    assert (FAST.ratio, FAST.is_met, FAST.pairs) == (6.0, True, 3)
    assert (SLOW.ratio, SLOW.is_met) == (1.45, False)
    assert medians([(1.0, 4.0), (3.0, 5.0), (2.0, 9.0)]) == (2.0, 5.0)


def test_a_goal_beside_the_main_one_counts_as_well() -> None:
    short = found("short", "new / old", [(1.0, 6.0)], 5.0, also={"waits <= 2": True, "drift = 0": False})
    assert (short.ratio >= short.goal, short.is_met) == (True, False)
    assert short.as_json()["also"] == {"waits <= 2": True, "drift = 0": False}


def test_json_has_the_name_the_ratio_what_was_compared_and_the_machine() -> None:
    told = json.loads(json.dumps(FAST.as_json()))
    assert (told["name"], told["ratio"], told["goal"], told["is_met"]) == ("fast", 6.0, ">= 5.0", True)
    assert (told["compared"], told["pairs_per_s"], told["ratio_highest"]) == ("new / old", 3, 7.0)
    assert "torch" in told["machine"]


def test_a_page_has_a_row_for_each_result_and_a_chart_that_can_be_drawn(tmp_path: Path) -> None:
    write_page(str(tmp_path / "page.md"), [FAST, SLOW])
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| `fast` | 6.0 | \u2265 5.0, met | 3 | new / old |" in page
    assert "| `slow` | 1.45 | \u2264 1.2, **not met** | 2 | new / old |" in page
    assert "(page.svg)" in page
    chart = ET.fromstring((tmp_path / "page.svg").read_text(encoding="utf-8"))
    bars = [bar.get("fill") for bar in chart.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(set(bars)) == 2, "what is met has another colour than what is not"


def test_what_people_wrote_under_a_page_stays(tmp_path: Path) -> None:
    write_page(str(tmp_path / "page.md"), [FAST, SLOW])
    with (tmp_path / "page.md").open("a", encoding="utf-8") as file:
        file.write("\n## Notes\n\nWhy it is so.\n")
    write_page(str(tmp_path / "page.md"), [FAST])
    again = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "`slow`" not in again
    assert again.endswith("\n## Notes\n\nWhy it is so.\n")


@pytest.mark.parametrize("arguments", [["speed"], ["hop", "--pairs", "0"], ["all", "--pairs", "1001"]])
def test_a_mistake_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("murmur bench: ")


@pytest.mark.parametrize("name", BENCHES)
def test_every_measurement_can_be_started_by_its_name(name: str) -> None:
    module = importlib.import_module(f"bench.{name.replace('-', '_')}")
    assert inspect.iscoroutinefunction(module.measure)
    assert inspect.signature(module.measure).return_annotation is Found
    assert module.PAIRS > 1


def test_without_a_gpu_its_measurement_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert main(["gpu"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["murmur bench gpu: there is no CUDA device here"]


def test_a_gpus_measurement_works_as_far_as_it_can_be_tried_on_a_cpu() -> None:
    result = measure_on(torch.device("cpu"), MID | {"num_hidden_layers": 2}, 2, copied_bytes=1 << 20)
    assert result.pairs == 2
    assert result.ratio > 0
    assert result.details["weights_mb"] == 45
    assert result.details["batch_ratio"] > 1.0


@pytest.mark.slow
async def test_so_does_what_is_measured_beside_it() -> None:
    shape = MID | {"num_hidden_layers": 1}
    told = await measure_others(torch.device("cpu"), shape, 2, prompt_tokens=64, steps=4, rounds=1)
    mixed, quantized = told["mixed"], told["quantized"]
    assert mixed["steps_slower"] == pytest.approx(mixed["beside_ms"] / mixed["steps_ms"], abs=0.1)
    assert quantized.keys() == {"none", "int8", "nf4"}
    assert all(milliseconds > 0 for times in (mixed, *quantized.values()) for milliseconds in times.values())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_swarm_of_processes_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reuse", "--pairs", "1", "--json"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert told["ratio"] > 1.0, "a forked prefix is quicker than one that is sent again"
    assert told["cold_ms"] > told["forked_ms"]
