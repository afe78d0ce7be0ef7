"""What quantization saves and costs: memory of a block in bf16 / in nf4, goal >= 3.5, and a row for each way.

Memory and time are those of mid blocks, which are large enough that reading weights dominates. Accuracy is
that of the demo model, which is trained: rounding of random weights says nothing about words. It reads
answers to held-out questions; each way is compared with fp32, on the same tokens.
"""

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

import demo
from bench.models import make_mid
from bench.report import Found
from demo.corpus.intents import load_corpus
from demo.heldout import load_heldout
from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.model_ends import ModelEnds, load_ends
from swarm.wire.blocks import Span

GOAL = 3.5
PAIRS = 40
MID_BLOCKS = 4
CONTEXT_TOKENS = 16
TEXTS = 60
DEMO_MODEL = Path(demo.__file__).parent / "model"
WAYS = {"fp32": ("fp32", "none"), "bf16": ("bf16", "none"), "int8": ("bf16", "int8"), "nf4": ("bf16", "nf4")}
"""Name -> dtype and quantization."""

T = TypeVar("T")


async def measure(pairs: int = PAIRS) -> Found:
    """Load every way, run texts through each, and time decode steps in turn."""
    return await asyncio.to_thread(_measure, pairs)


def _measure(pairs: int) -> Found:
    torch.set_num_threads(1)
    accuracies = _find_accuracies(open_checkpoint(str(DEMO_MODEL)))
    block_bytes, steps_s = _find_costs(pairs)
    rows = {
        way: {
            "block_mb": round(block_bytes[way] / 1e6, 2),
            "hidden_error": round(it.hidden_error, 5),
            "kl": round(it.kl, 6),
            "same_token": round(it.same_token, 4),
            "step_time": round(
                statistics.median(a / b for a, b in zip(steps_s[way], steps_s["bf16"], strict=True)), 2
            ),
        }
        for way, it in accuracies.items()
    }
    return Found(
        "quantization",
        f"memory of a mid block in bf16 / in nf4; errors against fp32 on {TEXTS} answers of the demo model,"
        f" time of a decode step / bf16, one thread",
        round(block_bytes["bf16"] / block_bytes["nf4"], 3),
        GOAL,
        pairs,
        details=dict(rows),
    )


def held_bytes(make: Callable[[], T]) -> tuple[T, int]:
    """Call `make`; return what it returns, and the bytes of all tensors that it made and left.

    What shares memory counts once, and so does what a library keeps from its first use.
    """
    gc.freeze()  # what is here already is not listed any more
    try:
        made = make()
        gc.collect()
        tensors = [it for it in gc.get_objects() if issubclass(type(it), Tensor) and not it.is_meta]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return made, sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    finally:
        gc.unfreeze()


# --- accuracy --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far a way is from fp32: means over all tokens of answers.

    `hidden_error` is the length of the difference / that of the hidden state that leaves the last block, `kl`
    the divergence of the next token's chances in nats, `same_token` the share of tokens whose likeliest
    successor is the same.
    """

    hidden_error: float
    kl: float
    same_token: float


def _find_accuracies(checkpoint: Checkpoint) -> dict[str, Accuracy]:
    ends = load_ends(checkpoint, dtype="fp32")
    texts = _texts()
    reference: list[Tensor] = []
    found = {}
    for way, (dtype, quantization) in WAYS.items():
        span = Span(0, checkpoint.num_blocks)
        loaded = load_span(checkpoint, span, dtype=dtype, quantization=quantization)
        bench = _Decoding(SpanModel(loaded, span))
        hidden = [bench.run(bench.open(), ends.embed(ids)).float()[prompt:] for ids, prompt in texts]
        reference = reference or hidden
        found[way] = _compare(ends, torch.cat(reference), torch.cat(hidden))
    return found


def _compare(ends: ModelEnds, expected: Tensor, hidden: Tensor) -> Accuracy:
    errors = (hidden - expected).norm(dim=-1) / expected.norm(dim=-1)
    right, ours = ends.logits(expected).log_softmax(-1), ends.logits(hidden).log_softmax(-1)
    kl = F.kl_div(ours, right, log_target=True, reduction="batchmean")
    same = (right.argmax(-1) == ours.argmax(-1)).float().mean()
    return Accuracy(float(errors.mean()), float(kl), float(same))


def _texts() -> list[tuple[list[int], int]]:
    """Token ids of questions with their answers, and where each answer begins."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL, local_files_only=True)
    intents, texts = load_corpus().intents, []
    for question in load_heldout().questions[:TEXTS]:
        asked = [{"role": "user", "content": question.text}]
        answered = [*asked, {"role": "assistant", "content": intents[question.intent].answer}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        text = tokenizer.apply_chat_template(answered, tokenize=False)
        prompt_ids, ids = (tokenizer.encode(it, add_special_tokens=False) for it in (prompt, text))
        texts.append((ids, len(prompt_ids) - 1))
    return texts


# --- memory and time -------------------------------------------------------------------------------


def _find_costs(pairs: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Bytes of a mid block, and seconds of decode steps that ran in turn, for each way."""
    span, held, benches = Span(0, MID_BLOCKS), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = open_checkpoint(str(make_mid(Path(folder))))
        for way, (dtype, quantization) in WAYS.items():
            load = partial(load_span, checkpoint, span, dtype=dtype, quantization=quantization)
            model, total = held_bytes(load)
            held[way] = total / MID_BLOCKS
            benches[way] = _Decoding(SpanModel(model, span))
    caches = {way: bench.open() for way, bench in benches.items()}
    for way, bench in benches.items():
        bench.run(caches[way], bench.noise(CONTEXT_TOKENS))
    rounds = [{way: bench.step_s(caches[way]) for way, bench in benches.items()} for _ in range(pairs)]
    return held, {way: [it[way] for it in rounds] for way in WAYS}


class _Decoding:
    """A span and its sessions."""

    def __init__(self, model: SpanModel) -> None:
        self._model = model
        self._pool = KVPool(10_000_000)

    def open(self) -> SessionCache:
        return self._pool.open(self._model.span)

    def noise(self, tokens: int) -> Tensor:
        return torch.randn(tokens, self._model.hidden_size)

    def step_s(self, cache: SessionCache) -> float:
        """Decode one token; return the seconds it took."""
        hidden = self.noise(1)
        started = time.perf_counter()
        self.run(cache, hidden)
        return time.perf_counter() - started

    def run(self, cache: SessionCache, hidden: Tensor) -> Tensor:
        """Take `hidden` [tokens, hidden] through the span."""
        self._pool.begin_write(cache, cache.used, cache.used + len(hidden))
        return self._model.run([Chunk(cache, cache.span, cache.used, hidden.to(self._model.dtype))])[0]
