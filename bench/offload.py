"""Two servers that hold the model between them, against one machine that holds half of it and reads the rest.

The other way to run a model that does not fit is accelerate's disk offload. It gets what one server has here:
half of the blocks in memory, half on the disk. Before each of its tokens the offloaded files are dropped from
the page cache, as if the memory were really that small; `disk_mb_per_s` says how fast they came.
"""

import asyncio
import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.models import make_mid, some_ids
from bench.report import Found, found, medians
from bench.swarms import open_swarm
from swarm.errors import ConfigError

GOAL = 10.0
TOKENS = 8
PROMPT_TOKENS = 16
BLOCKS_IN_MEMORY = 8
PAIRS = 5


async def measure(pairs: int = PAIRS) -> Found:
    """Decode in turn with disk offload here and over two hops. Raises ConfigError without accelerate."""
    _check_accelerate()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # a folder for temporary files may lie in memory
        model = make_mid(Path(folder))
        offloaded = _Offloaded(model, Path(folder) / "offloaded")
        async with open_swarm(model) as swarm:
            servers = await swarm.start((0, 8), (8, 16))
            async with swarm.session(*servers) as session:
                await session.feed(some_ids(1, PROMPT_TOKENS))
                await swarm.decode(session, 4)
                speeds = []
                for _ in range(pairs):
                    offloaded_s = await asyncio.to_thread(offloaded.decode_s)
                    speeds.append((1 / offloaded_s, TOKENS / await swarm.decode(session, TOKENS)))
    offloaded_speed, swarm_speed = medians(speeds)
    return found(
        "offload",
        "tokens/s over 2 hops / accelerate's disk offload with half of the blocks in memory, mid, bf16",
        speeds,
        GOAL,
        offload_tokens_per_s=round(offloaded_speed, 3),
        swarm_tokens_per_s=round(swarm_speed, 2),
        disk_mb_per_token=round(offloaded.num_bytes / 1e6),
        disk_mb_per_s=round(offloaded.num_bytes * offloaded_speed / 1e6),
    )


def _check_accelerate() -> None:
    if importlib.util.find_spec("accelerate") is None:  # transformers needs it for offloading
        wish = ".venv/bin/python -m pip install 'accelerate>=1.0'"
        raise ConfigError(f"this measurement compares with accelerate, which is not here: {wish}")


class _Offloaded:
    """The model in transformers, with the blocks that do not fit on the disk."""

    def __init__(self, path: Path, folder: Path) -> None:
        num_blocks = AutoConfig.from_pretrained(path).num_hidden_layers
        places: dict[str, Any] = {
            f"model.layers.{index}": "cpu" if index < BLOCKS_IN_MEMORY else "disk"
            for index in range(num_blocks)
        }
        ends = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16, device_map=places | ends, offload_folder=folder
        )
        self._files = [*path.glob("*.safetensors"), *folder.glob("*")]
        blocks = num_blocks - BLOCKS_IN_MEMORY
        weights = sum(p.numel() for p in self._model.model.layers[0].parameters())
        self.num_bytes = weights * torch.bfloat16.itemsize * blocks
        ids = torch.tensor([some_ids(1, PROMPT_TOKENS)])
        self._last = self._step(ids, None)

    def decode_s(self) -> float:
        """Seconds for one token whose offloaded weights are on the disk and nowhere else."""
        torch.set_num_threads(1)
        for file in self._files:
            _forget(file)
        started = time.perf_counter()
        self._last = self._step(self._last.logits[:, -1:].argmax(-1), self._last.past_key_values)
        return time.perf_counter() - started

    @torch.inference_mode()
    def _step(self, ids: torch.Tensor, cache: Any) -> Any:
        return self._model(ids, past_key_values=cache, use_cache=True)


def _forget(file: Path) -> None:
    """Drop a file from the page cache."""
    with file.open("rb") as opened:
        os.fdatasync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
