"""How fast this server is: its own executor timed with steps of a throw-away session."""

import asyncio
import functools
from pathlib import Path

import torch

from server.graphs import SEEN_BEFORE
from server.host import Host
from server.throughput import Setup, Throughput, measure_throughput, recall_throughput
from server.work import Work
from swarm.wire.blocks import PeerId

WARM_UP_STEPS = SEEN_BEFORE + 2
"""Until steps are replayed from a CUDA graph."""


async def measured(host: Host, device: str, quantization: str, folder: Path) -> Throughput:
    """Tokens/s of this span on this machine, remembered in `folder` from an earlier start."""
    model = host.model
    setup = Setup(
        model.fingerprint, len(model.span), device, str(model.dtype), quantization, torch.__version__
    )
    loop = asyncio.get_running_loop()

    def measure() -> Throughput:
        for _ in range(WARM_UP_STEPS if device.startswith("cuda") else 0):
            run(1)
        return measure_throughput(run, len(model.span))

    def run(num_tokens: int) -> None:
        asyncio.run_coroutine_threadsafe(_run_once(host, num_tokens), loop).result()

    path = folder / "throughput.json"
    return await asyncio.to_thread(recall_throughput, path, setup, measure)


async def _run_once(host: Host, num_tokens: int) -> None:
    """One step of a throw-away session."""
    model, pool = host.model, host.rooms.pool
    cache = pool.open(model.span)
    hidden = torch.zeros(num_tokens, model.hidden_size, dtype=model.dtype)
    try:
        await host.executor.run(Work(cache, model.span, 0, hidden, PeerId("throughput")))
    finally:
        await host.executor.call(functools.partial(pool.close, cache))
