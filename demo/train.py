"""Trains the demo model from the corpus: `python -m demo.train [--out DIR] [--seed N]`.

The defaults make the bundled model: the tokenizer is learnt first, then the weights, both from nothing. Two
runs with the same seed on the same kind of processor give the same weights.
"""

import argparse
import itertools
import math
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from demo.corpus.conversations import Conversation, Conversations
from demo.corpus.intents import load_corpus
from demo.heldout import load_heldout
from demo.packing import NOT_LEARNT, Batch, Encoder, Sample, pack
from demo.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MODEL_DIR = Path(__file__).parent / "model"
NUM_THREADS = 2


@dataclass(frozen=True)
class Recipe:
    """How the bundled model is trained.

    The first `single_steps` steps see single questions, the cheapest way to learn which answer fits; then
    come conversations of up to 4 turns, and in every `long_every`-th step long ones.
    """

    num_steps: int = 2200
    single_steps: int = 1200
    matrix_lr: float = 0.02
    other_lr: float = 4e-3
    weight_decay: float = 0.05
    warmup_steps: int = 60
    rows: int = 8
    row_tokens: int = 256
    long_every: int = 12
    long_rows: int = 2
    long_row_tokens: int = 1024
    vocab_size: int = 2048
    num_tokenizer_samples: int = 20_000


def build_model(vocab_size: int, pad_id: int, end_id: int) -> "LlamaForCausalLM":
    """Return an untrained fp32 Llama: 8 blocks, 6 heads over 3 KV heads, tied ends, 3.6 million weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def train(recipe: Recipe, seed: int) -> tuple["LlamaForCausalLM", "PreTrainedTokenizerFast"]:
    """Train tokenizer and model; progress goes to standard output."""
    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(seed)
    conversations = Conversations(load_corpus(), random.Random(seed), load_heldout().all_questions())
    tokenizer = train_tokenizer(
        _texts(conversations, recipe.num_tokenizer_samples), recipe.vocab_size, max_tokens=2048
    )
    model = build_model(recipe.vocab_size, tokenizer.pad_token_id, tokenizer.eos_token_id)
    _fit(model, _batches(conversations, Encoder(tokenizer), recipe, random.Random(seed)), recipe)
    return model, tokenizer


def _texts(conversations: Conversations, num_samples: int) -> Iterator[str]:
    for conversation in itertools.islice(conversations, num_samples):
        yield conversation.system
        for turn in conversation.turns:
            yield from (turn.question, turn.answer)


def _batches(
    conversations: Conversations, encoder: Encoder, recipe: Recipe, rng: random.Random
) -> Iterator[Batch]:
    single = _cut_short((conversations.draw(1) for _ in itertools.count()), encoder, rng)
    short = _cut_short(conversations, encoder, rng)
    long = (encoder.encode(conversations.draw(rng.randint(5, 16))) for _ in itertools.count())
    for step in itertools.count(1):
        if step <= recipe.single_steps:
            yield pack(single, recipe.rows, recipe.row_tokens)
        elif step % recipe.long_every:
            yield pack(short, recipe.rows, recipe.row_tokens)
        else:
            yield pack(long, recipe.long_rows, recipe.long_row_tokens)


def _cut_short(
    conversations: Iterable[Conversation], encoder: Encoder, rng: random.Random
) -> Iterator[Sample]:
    """Encode conversations; most of them break off early in the last answer.

    Which answer to give is decided in its first words and is the hard part; its rest is soon known by heart.
    """
    for conversation in conversations:
        yield encoder.encode(conversation, max_answer_tokens=6 if rng.random() < 0.88 else None)


def _fit(model: "LlamaForCausalLM", batches: Iterator[Batch], recipe: Recipe) -> None:
    optimizers = _optimizers(model, recipe)
    schedules = [LambdaLR(optimizer, lambda step: _lr_factor(step, recipe)) for optimizer in optimizers]
    progress = _Progress(recipe.num_steps)
    for step, batch in zip(range(1, recipe.num_steps + 1), batches, strict=False):
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        progress.report(step, loss.item(), batch.ids.numel())


def _optimizers(model: "LlamaForCausalLM", recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return Muon for the blocks' matrices and AdamW for embeddings and norms.

    Muon reaches a given loss in less than half of the steps that AdamW needs alone (measured over 200 steps).
    """
    embeddings = model.model.embed_tokens.weight
    matrices = [p for p in model.parameters() if p.ndim > 1 and p is not embeddings]
    others = [embeddings, *(p for p in model.parameters() if p.ndim == 1)]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _lr_factor(step: int, recipe: Recipe) -> float:
    """Rise linearly, then fall along a cosine to 1 %."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / (recipe.num_steps - recipe.warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _loss(model: "LlamaForCausalLM", batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy of the answers' tokens; the head runs only where there is one."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
        learnt = batch.labels != NOT_LEARNT
        logits = model.lm_head(hidden[learnt])
    return F.cross_entropy(logits.float(), batch.labels[learnt])


class _Progress:
    """Says every few seconds how far the training is, and at the end what it cost."""

    def __init__(self, num_steps: int, every_s: float = 5.0) -> None:
        self._num_steps = num_steps
        self._every_s = every_s
        self._started = self._said = time.monotonic()
        self._num_tokens = 0

    def report(self, step: int, loss: float, num_tokens: int) -> None:
        self._num_tokens += num_tokens
        now = time.monotonic()
        if now - self._said < self._every_s and step < self._num_steps:
            return
        self._said = now
        elapsed_s = now - self._started
        left_s = elapsed_s / step * (self._num_steps - step)
        say(
            f"step {step}/{self._num_steps}  loss {loss:.3f}  {self._num_tokens / elapsed_s:.0f} tokens/s  "
            f"{elapsed_s:.0f} s done, {left_s:.0f} s left, {time.process_time():.0f} s of processor time"
        )


def say(line: str) -> None:
    """Write one line to standard output at once, also into a file."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def save(model: "LlamaForCausalLM", tokenizer: "PreTrainedTokenizerFast", out: Path) -> None:
    """Write config, weights (safetensors, fp32) and tokenizer into the folder `out`."""
    model.generation_config.do_sample = False
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    say(f"saved {sum(p.numel() for p in model.parameters()):,} parameters to {out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.train", description="Train the demo model on the CPU."
    )
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="default: the bundled model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=Recipe.num_steps, help="fewer make a quick, worse model")
    arguments = parser.parse_args()
    model, tokenizer = train(Recipe(num_steps=arguments.steps), arguments.seed)
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
