"""What a measurement found: a ratio of interleaved pairs, its goal, and the machine; as text or JSON."""

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from swarm.errors import ConfigError

Pair = tuple[float, float]


class Unmeasurable(ConfigError):
    """This machine lacks what a measurement needs."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one measurement. `ratio` is the median over pairs that ran in turn, in one run."""

    name: str
    compared: str
    ratio: float
    goal: float
    pairs: int
    is_least: bool = True
    """Whether `goal` is the least that `ratio` should be, or the most."""
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    also: dict[str, bool] = field(default_factory=dict)
    """Further goals, each as people read it, and whether it is reached: `p99_ms <= 2000`."""

    @property
    def is_met(self) -> bool:
        """Whether all goals are reached."""
        is_main_met = self.ratio >= self.goal if self.is_least else self.ratio <= self.goal
        return is_main_met and all(self.also.values())

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "name": self.name,
            "ratio": self.ratio,
            "goal": f"{'>=' if self.is_least else '<='} {self.goal}{self.unit}",
            "is_met": self.is_met,
            "pairs": self.pairs,
            "compared": self.compared,
            **self.details,
            **({"also": self.also} if self.also else {}),
            "machine": machine(),
        }

    def as_text(self) -> str:
        """A line for each thing, for people."""
        return "".join(f"{key:<18} {thing}\n" for key, thing in self.as_json().items())


def found(
    name: str,
    compared: str,
    pairs: Sequence[Pair],
    goal: float,
    *,
    is_least: bool = True,
    also: dict[str, bool] | None = None,
    **details: Any,
) -> Found:
    """Make a result of (baseline, candidate) pairs: the median of candidate / baseline."""
    ratios = sorted(candidate / baseline for baseline, candidate in pairs)
    spread = {"ratio_lowest": round(ratios[0], 3), "ratio_highest": round(ratios[-1], 3)}
    ratio = round(statistics.median(ratios), 3)
    return Found(
        name, compared, ratio, goal, len(ratios), is_least, details=spread | details, also=also or {}
    )


def medians(pairs: Sequence[Pair]) -> Pair:
    """Median of the baselines, median of the candidates."""
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


def machine() -> str:
    """This machine and what runs the model, in one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_cpu_name()}, {os.cpu_count()} cores{gpu}, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, torch {torch.__version__}"
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "a CPU"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "a CPU")
