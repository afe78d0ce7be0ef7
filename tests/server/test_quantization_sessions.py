"""Quantized spans: a session's answer in batches, in chunks and after a rollback is the one it gets alone.

In fp32 and in full these agree to 1e-4 (`test_span`). Quantized they cannot, for two reasons:

- Rounding. Kernels for other numbers of rows differ in the last bit, and where inputs are rounded (to 127
  steps in int8, to bf16 in nf4 where a processor has a fused kernel) that bit now and then decides between
  two steps.
- In int8, columns of inputs in which *any* row of a batch reaches 6 are computed in full for *all* its rows.
  Who shares a batch thus decides how exactly a row is computed, though no number of theirs enters it: the row
  stays between int8 and full, so it moves by no more than int8 itself costs.

TOLERANCES are two to three times the most that was seen, over six blocks of random weights wide enough that
almost every batch reaches 6. Another prompt moves rows by 1.1: that is what a wrong mask would look like.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import KVPool, SessionCache
from server.span import SpanModel
from swarm.checkpoint import open_checkpoint
from swarm.wire.blocks import Span
from tests.models import make_model

TOLERANCES = {("int8", "fp32"): 0.15, ("int8", "bf16"): 0.15, ("nf4", "fp32"): 0.01, ("nf4", "bf16"): 0.06}
"""How far a row may be from the one computed alone, as a share of its length.

Seen: 0.06, 0.07, 0.004, 0.024."""
SPANS = (Span(0, 2), Span(2, 6))
LOUD = 100.0


class Quantized:
    """The spans of a small model one after the other, with a pool."""

    def __init__(self, path: Path, kind: str, dtype: str) -> None:
        checkpoint = open_checkpoint(str(path))
        self.hidden_size = checkpoint.hidden_size
        self._models = [
            SpanModel(load_span(checkpoint, span, dtype=dtype, quantization=kind), span) for span in SPANS
        ]
        self._pool = KVPool(1_000_000)

    def open(self) -> list[SessionCache]:
        return [self._pool.open(span) for span in SPANS]

    def step(self, *works: tuple[list[SessionCache], int, Tensor]) -> list[Tensor]:
        """Run (session, position, hidden [tokens, hidden]) of several sessions as one batch per span."""
        hiddens = [hidden for _, _, hidden in works]
        for place, model in enumerate(self._models):
            chunks = []
            for (session, position, _), hidden in zip(works, hiddens, strict=True):
                self._pool.begin_write(session[place], position, position + len(hidden))
                chunks.append(Chunk(session[place], model.span, position, hidden))
            hiddens = model.run(chunks)
        return [hidden.float() for hidden in hiddens]

    def alone(self, hidden: Tensor) -> Tensor:
        """What a session gets that is alone, in one step."""
        return self.step((self.open(), 0, hidden))[0]


@pytest.fixture(scope="module", params=TOLERANCES, ids="-".join)
def setting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Quantized, float]:
    path = make_model(
        tmp_path_factory.mktemp("models"), "llama", intermediate_size=128, num_attention_heads=4
    )
    return Quantized(path, *request.param), TOLERANCES[request.param]


def some_hidden(tokens: int, seed: int, size: int) -> Tensor:
    return torch.randn(tokens, size, generator=torch.Generator().manual_seed(seed))


def distance(ours: Sequence[Tensor], alone: Tensor) -> float:
    """The largest difference of a row, as a share of the row's length."""
    rows = torch.cat(list(ours))
    return float(((rows - alone).norm(dim=-1) / alone.norm(dim=-1)).max())


def test_chunks_of_a_prompt_and_decoded_tokens_equal_one_step(setting: tuple[Quantized, float]) -> None:
    chain, tolerance = setting
    hidden = some_hidden(24, 1, chain.hidden_size)
    for counts in ((7, 16, 1), (24 - 6, *[1] * 6), [1] * 24):
        session, parts, position = chain.open(), [], 0
        for count in counts:
            parts += chain.step((session, position, hidden[position : position + count]))
            position += count
        assert distance(parts, chain.alone(hidden)) < tolerance


@pytest.mark.parametrize("loudness", [1.0, LOUD])
def test_sessions_in_one_batch_equal_each_alone(setting: tuple[Quantized, float], loudness: float) -> None:
    chain, tolerance = setting
    hidden = [some_hidden(20, seed, chain.hidden_size) for seed in range(4)]
    hidden[3] *= loudness
    sessions = [chain.open() for _ in hidden]
    parts: list[list[Tensor]] = [[] for _ in hidden]
    for first, last in ((0, 11), (11, 12), (12, 19), (19, 20)):
        works = [(session, first, each[first:last]) for session, each in zip(sessions, hidden, strict=True)]
        for part, output in zip(parts, chain.step(*works), strict=True):
            part.append(output)
    for part, each in zip(parts, hidden, strict=True):
        assert distance(part, chain.alone(each)) < tolerance


def test_a_rollback_leaves_nothing_behind(setting: tuple[Quantized, float]) -> None:
    chain, tolerance = setting
    hidden, other = (some_hidden(16, seed, chain.hidden_size) for seed in (8, 9))
    session = chain.open()
    first = chain.step((session, 0, hidden[:10]))
    chain.step((session, 10, other[10:]))
    again = chain.step((session, 10, hidden[10:]))
    assert distance([*first, *again], chain.alone(hidden)) < tolerance


def test_another_prompt_moves_rows_by_far_more_than_the_tolerance(setting: tuple[Quantized, float]) -> None:
    chain, tolerance = setting
    hidden = some_hidden(16, 10, chain.hidden_size)
    changed = torch.cat([hidden[:3], -hidden[3:4], hidden[4:]])
    assert distance([chain.alone(changed)[4:]], chain.alone(hidden)[4:]) > 4 * tolerance


def test_int8_stays_between_itself_and_full_whoever_shares_the_batch(tmp_path: Path) -> None:
    path = make_model(tmp_path, "llama", intermediate_size=128, num_attention_heads=4)
    full, chain = Quantized(path, "none", "fp32"), Quantized(path, "int8", "fp32")
    hidden, loud = (some_hidden(20, seed, chain.hidden_size) for seed in (1, 2))
    expected = full.alone(hidden)
    beside_loud = chain.step((chain.open(), 0, hidden), (chain.open(), 0, LOUD * loud))[0]
    assert distance([beside_loud], expected) < 2 * distance([chain.alone(hidden)], expected)


torch.set_num_threads(1)  # models this small are six times slower where threads wait for one another
