"""What one block server costs: seconds from its command to serving the tiny model, goal <= 6.

Beside it, read from /proc: its processes (itself and p2pd), and what they have in memory above the weights,
without a session (goal: at most 0.6 GB). A first start, which measures the machine's speed and fills the
disk's cache, is not counted.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.models import make_tiny
from bench.report import Found
from bench.swarms import Swarm, open_swarm
from swarm.errors import ConfigError

MAX_PROCESSES = 2
MAX_MEMORY_MB = 600
GOAL_S = 6.0
PAIRS = 3
BLOCKS = (0, 8)


async def measure(pairs: int = PAIRS) -> Found:
    """Start a server, look at it, and kill it, over and over. Raises ConfigError where there is no /proc."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise ConfigError("this measurement needs Linux: it reads /proc")
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny(Path(folder))
        weight_bytes = sum(file.stat().st_size for file in model.glob("*.safetensors"))
        async with open_swarm(model) as swarm:
            starts = [await _started(swarm) for _ in range(1 + pairs)][1:]
    seconds, cpu_seconds, processes, memory = zip(*starts, strict=True)
    memory_mb = round((max(memory) - weight_bytes) / 1e6)
    return Found(
        "server",
        "seconds from the command to serving, all 8 blocks of tiny, fp32",
        round(statistics.median(seconds), 2),
        GOAL_S,
        pairs,
        is_least=False,
        unit=" s",
        details={
            "start_cpu_s": round(statistics.median(cpu_seconds), 2),
            "processes": max(processes),
            "memory_above_weights_mb": memory_mb,
        },
        also={
            f"processes <= {MAX_PROCESSES}": max(processes) <= MAX_PROCESSES,
            f"memory_above_weights_mb <= {MAX_MEMORY_MB}": memory_mb <= MAX_MEMORY_MB,
        },
    )


async def _started(swarm: Swarm) -> tuple[float, float, int, int]:
    """Seconds until a server serves, the CPU's part of them, the number of its processes, their bytes."""
    began = time.perf_counter()
    (service,) = await swarm.start(BLOCKS)
    seconds = time.perf_counter() - began
    family = [service.process.pid, *descendants(service.process.pid)]
    found = (seconds, sum(map(_cpu_s, family)), len(family), sum(map(_memory_bytes, family)))
    service.kill()
    return found


def descendants(pid: int) -> list[int]:
    """Every process that came of `pid` and lives; without `pid`."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *descendants(child)]
    return found


def _memory_bytes(pid: int) -> int:
    """What the process has in memory; of pages that it shares with others, its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
