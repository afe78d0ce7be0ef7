"""A span on a GPU: decode steps per second against what reading its weights allows, goal >= 0.7.

Four blocks of LLaMA-65B's shape (hidden 8192, 64 heads; arXiv 2302.13971, table 2) in bf16 decode one
session; in turn with that, the GPU copies 2 GiB, which tells its bandwidth. Beside it, 32 sessions in one
batch are compared with the same 32 one by one (`batch_ratio`, goal >= 16). Hidden states come from the host
and go back to it, as in a server. Prompts, steps beside them, and quantized blocks: gpu_mix.py.
"""

import asyncio
import dataclasses
import statistics
import time
from typing import Any

import torch
from transformers import AutoModel, LlamaConfig, PreTrainedModel

from bench import gpu_mix
from bench.decode_context import WARM_UP_STEPS, Decoding
from bench.report import Found, Unmeasurable, found
from server.quantization import quantize
from server.span import SpanModel, find_blocks
from swarm.checkpoint.skeleton import neutralize_ends
from swarm.wire.blocks import Span

GOAL = 0.7
BATCH_GOAL = 16.0
PAIRS = 40
SESSIONS = 32
PROMPT_TOKENS = 64
COPIED_BYTES = 2 << 30
LLAMA_65B: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 22016,
    "num_hidden_layers": 4,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
}


async def measure(pairs: int = PAIRS) -> Found:
    """Time steps and copies in turn. Raises Unmeasurable without CUDA."""
    if not torch.cuda.is_available():
        raise Unmeasurable("there is no CUDA device here")
    device = torch.device("cuda")
    alone = await asyncio.to_thread(measure_on, device, LLAMA_65B, pairs)
    others = await measure_others(device, LLAMA_65B, pairs)
    return dataclasses.replace(alone, details=alone.details | others)


async def measure_others(
    device: torch.device, shape: dict[str, Any], pairs: int, **mixed: int
) -> dict[str, Any]:
    """Steps beside prompts, and the same blocks quantized: see gpu_mix.py."""
    model, _ = make_span(device, shape)
    beside = await gpu_mix.mixed(model, **mixed)
    models = {kind: make_span(device, shape, kind)[0] for kind in ("none", "int8", "nf4")}
    return {"mixed": beside, "quantized": await asyncio.to_thread(gpu_mix.quantized, models, pairs)}


@torch.inference_mode()
def measure_on(
    device: torch.device, shape: dict[str, Any], pairs: int, copied_bytes: int = COPIED_BYTES
) -> Found:
    """Time steps of a model of `shape` on `device`, and copies there, in turn."""
    model, size_bytes = make_span(device, shape)
    decoding, copy = Decoding(model), _Copy(device, copied_bytes)
    alone = decoding.open(PROMPT_TOKENS)
    many = [decoding.open(PROMPT_TOKENS + number) for number in range(SESSIONS)]
    for _ in range(WARM_UP_STEPS):
        decoding.step_s(alone), decoding.step_s(*many), copy.bytes_per_s()
    rows = [
        (size_bytes / copy.bytes_per_s(), decoding.step_s(alone), decoding.step_s(*many))
        for _ in range(pairs)
    ]
    batch_ratio = round(statistics.median(SESSIONS * one / all_ for _, one, all_ in rows), 2)
    least_s, step_s, many_s = (statistics.median(column) for column in zip(*rows, strict=True))
    return found(
        "gpu",
        "decode steps/s of a LLaMA-65B-shaped span of 4 blocks, bf16 / what the memory's bandwidth allows",
        [(step, least) for least, step, _ in rows],
        GOAL,
        step_ms=round(1e3 * step_s, 3),
        least_ms=round(1e3 * least_s, 3),
        weights_mb=size_bytes >> 20,
        copy_gb_per_s=round(size_bytes / least_s / 1e9),
        batch_sessions=SESSIONS,
        batch_ms=round(1e3 * many_s, 3),
        batch_ratio=batch_ratio,
        also={f"batch_ratio >= {BATCH_GOAL}": batch_ratio >= BATCH_GOAL},
    )


class _Copy:
    """A copy within the device's memory, again and again: each byte is read once and written once."""

    def __init__(self, device: torch.device, size_bytes: int) -> None:
        self._device = device
        self._from = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
        self._to = torch.empty_like(self._from)

    def bytes_per_s(self) -> float:
        """Copy once; returns the bandwidth."""
        self._wait()
        started = time.perf_counter()
        self._to.copy_(self._from)
        self._wait()
        return 2 * self._from.nbytes / (time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def make_span(
    device: torch.device, shape: dict[str, Any], quantization: str = "none"
) -> tuple[SpanModel, int]:
    """Blocks of LLaMA with always the same random weights on `device`, and how many bytes a step reads."""
    config = LlamaConfig(vocab_size=32, max_position_embeddings=8192, **shape)
    torch.manual_seed(0)
    with device:
        base = AutoModel.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    assert isinstance(base, PreTrainedModel)
    blocks = find_blocks(base)
    if quantization != "none":
        for block in blocks:
            quantize(block, quantization, device)
    size_bytes = sum(weight.nbytes for block in blocks for weight in block.parameters())
    neutralize_ends(base, blocks)
    return SpanModel(base, Span(0, shape["num_hidden_layers"])), size_bytes
