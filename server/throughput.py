"""How fast this machine runs its span: measured once in a short run, remembered in a file.

Only compute is measured. What the network adds is in the round trips and links that routes are made of.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

MAX_AGE_S = 7 * 24 * 3600.0
PREFILL_TOKENS = 128
SHARE_S = 0.45  # for each of the two measurements; both together stay below a second
MIN_RUNS = 3
MAX_RUNS = 50
MAX_FILE_BYTES = 1 << 20

RunTokens = Callable[[int], object]


@dataclass(frozen=True)
class Throughput:
    """What the server announces: `tokens_per_s` through the whole span in large steps, and `inference_rps`,
    the blocks per second that a single token passes.
    """

    tokens_per_s: float
    inference_rps: float


@dataclass(frozen=True)
class Setup:
    """All that a measurement depends on; another setup is measured anew."""

    fingerprint: str
    num_blocks: int
    device: str
    """Which one it is and, if it is the CPU, with how many threads: see `describe`."""
    dtype: str
    quantization: str
    torch_version: str

    @property
    def key(self) -> str:
        """The setup as a key of the file."""
        return json.dumps(asdict(self), sort_keys=True)


class _Remembered(msgspec.Struct, frozen=True):
    tokens_per_s: float
    inference_rps: float
    measured_at: float


def measure_throughput(
    run: RunTokens, num_blocks: int, *, clock: Callable[[], float] = time.perf_counter
) -> Throughput:
    """Time `run(n)`, which takes n tokens through all `num_blocks` blocks and returns when they are done.

    Medians of several runs after one to warm up. Blocks its thread for less than a second, unless three runs
    take longer.
    """
    step_s = _median_s(run, 1, clock)
    prefill_s = _median_s(run, PREFILL_TOKENS, clock)
    return Throughput(tokens_per_s=PREFILL_TOKENS / prefill_s, inference_rps=num_blocks / step_s)


def recall_throughput(
    path: Path, setup: Setup, measure: Callable[[], Throughput], *, now: Callable[[], float] = time.time
) -> Throughput:
    """The throughput remembered for `setup` in the JSON file `path`, if it is not too old; else measure it.

    A file that is damaged or cannot be written is no reason to fail: it only costs the measurement.
    """
    remembered = {k: m for k, m in _load(path).items() if 0 <= now() - m.measured_at < MAX_AGE_S}
    held = remembered.get(setup.key)
    if held is not None and held.tokens_per_s > 0 and held.inference_rps > 0:
        return Throughput(held.tokens_per_s, held.inference_rps)
    measured = measure()
    remembered[setup.key] = _Remembered(measured.tokens_per_s, measured.inference_rps, now())
    _save(path, remembered)
    return measured


def _median_s(run: RunTokens, num_tokens: int, clock: Callable[[], float]) -> float:
    run(num_tokens)
    times: list[float] = []
    while len(times) < MIN_RUNS or (sum(times) < SHARE_S and len(times) < MAX_RUNS):
        started = clock()
        run(num_tokens)
        times.append(clock() - started)
    return max(statistics.median(times), 1e-9)


def _load(path: Path) -> dict[str, _Remembered]:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(MAX_FILE_BYTES), type=dict[str, _Remembered])
    except (OSError, msgspec.MsgspecError, ValueError):
        return {}


def _save(path: Path, remembered: dict[str, _Remembered]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(remembered)))
        os.replace(draft, path)
    except OSError:
        return
