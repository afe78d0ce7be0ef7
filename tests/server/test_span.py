"""A chain of spans on ragged batches answers as the unsplit model does, whatever shares a batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaAttention

from server.attention import Chunk
from server.block_loader import load_span
from server.kv_cache import KVPool
from server.span import SpanModel, find_blocks
from server.verify import verify_span
from swarm.checkpoint import open_checkpoint
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.devices import blocks_device
from tests.models import FAMILIES, make_config, make_model, random_base
from tests.server.local_chain import MAX_LOGIT_DIFFERENCE, LocalChain, some_ids


@pytest.fixture(scope="module", params=FAMILIES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    path = make_model(tmp_path_factory.mktemp("models"), request.param)
    return LocalChain(path, (0, 1, 4, 6))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"), "llama")


def load(path: Path, span: Span, dtype: torch.dtype = torch.float32) -> SpanModel:
    loaded = load_span(open_checkpoint(str(path)), span, dtype=dtype, device=blocks_device())
    return SpanModel(loaded, span)


def test_a_prompt_at_once_equals_the_unsplit_model(chain: LocalChain) -> None:
    session = chain.open()
    (logits,) = chain.step((session, some_ids(40, seed=1)))
    assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE


def test_decoding_equals_prefilling(chain: LocalChain) -> None:
    session = chain.open()
    logits = [chain.step((session, [token]))[0] for token in some_ids(24, seed=2)]
    assert chain.difference(session, torch.cat(logits)) <= MAX_LOGIT_DIFFERENCE


def test_chunks_of_a_prompt_equal_the_whole(chain: LocalChain) -> None:
    session, ids = chain.open(), some_ids(90, seed=3)
    logits = [
        chain.step((session, ids[a:b]))[0] for a, b in ((0, 33), (33, 34), (34, 71), (71, 74), (74, 90))
    ]
    assert chain.difference(session, torch.cat(logits)) <= MAX_LOGIT_DIFFERENCE


def test_ragged_batches_of_prompts_chunks_and_decodes_equal_each_session_alone(chain: LocalChain) -> None:
    sessions = [chain.open() for _ in range(3)]
    outputs = chain.step(*((session, some_ids(5 + 7 * i, seed=i)) for i, session in enumerate(sessions)))
    logits = [[output] for output in outputs]
    for turn in range(12):
        news = [[int(done[-1][-1].argmax())] for done in logits]
        news[turn % 3] += some_ids(turn % 4, seed=turn)
        for done, output in zip(logits, chain.step(*zip(sessions, news, strict=True)), strict=True):
            done.append(output)
    for session, done in zip(sessions, logits, strict=True):
        assert chain.difference(session, torch.cat(done)) <= MAX_LOGIT_DIFFERENCE
        chain.close(session)


def test_a_step_at_a_lower_position_rolls_back(chain: LocalChain) -> None:
    session = chain.open()
    chain.step((session, some_ids(50, seed=4)))
    del session.ids[21:]
    (logits,) = chain.step((session, some_ids(9, seed=5)))
    assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE


def test_forks_and_a_parent_rolled_back_below_them_stay_exact(chain: LocalChain) -> None:
    parent = chain.open()
    chain.step((parent, some_ids(70, seed=6)))
    child = chain.fork(parent, 53)
    grandchild = chain.fork(child, 50)
    chain.step((child, some_ids(8, seed=7)), (grandchild, some_ids(1, seed=8)))
    great_grandchild = chain.fork(child, 59)
    del parent.ids[20:]
    works = [
        (session, some_ids(6 + i, seed=10 + i))
        for i, session in enumerate((parent, child, grandchild, great_grandchild))
    ]
    for (session, _), logits in zip(works, chain.step(*works), strict=True):
        assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE
    for session, _ in works:
        (logits,) = chain.step((session, [17]))
        assert chain.difference(session, logits) <= MAX_LOGIT_DIFFERENCE
        chain.close(session)


def test_forks_that_decode_together_equal_each_alone(chain: LocalChain) -> None:
    persona = chain.open()
    chain.step((persona, some_ids(70, seed=1)))
    forks = [chain.fork(persona, 70 - number % 2) for number in range(5)]
    for turn in range(4):
        counts = [1 + (number + turn) // 4 for number in range(5)]
        works = [(fork, some_ids(count, seed=9 + turn)) for fork, count in zip(forks, counts, strict=True)]
        for (fork, _), logits in zip(works, chain.step(*works), strict=True):
            assert chain.difference(fork, logits) <= MAX_LOGIT_DIFFERENCE


def test_rows_join_at_their_first_block_and_leave_after_their_last(llama: Path) -> None:
    whole = load(llama, Span(0, 6))
    pool = KVPool(100_000)
    spans = (Span(0, 2), Span(0, 6), Span(1, 3), Span(2, 6), Span(1, 3), Span(5, 6))
    caches = [pool.open(span) for span in spans]
    alone = [pool.open(span) for span in spans]
    parts = {span: load(llama, span) for span in set(spans)}
    for tokens in ((3, 5, 1, 4, 2, 1), (1, 1, 1, 1, 1, 1), (1, 6, 2, 1, 1, 3)):
        chunks, expected = [], []
        for cache, lonely, count in zip(caches, alone, tokens, strict=True):
            hidden = torch.randn(count, 64)
            pool.begin_write(cache, cache.used, cache.used + count)
            pool.begin_write(lonely, lonely.used, lonely.used + count)
            chunks.append(Chunk(cache, cache.span, cache.used, hidden))
            (output,) = parts[cache.span].run([Chunk(lonely, cache.span, lonely.used, hidden)])
            expected.append(output)
        for output, alone_output in zip(whole.run(chunks), expected, strict=True):
            torch.testing.assert_close(output, alone_output, atol=1e-4, rtol=0)


def test_bf16_stays_within_a_stated_tolerance_of_itself_alone(llama: Path) -> None:
    model = load(llama, Span(0, 6), torch.bfloat16)
    pool = KVPool(100_000)
    hidden = [torch.randn(length, 64).bfloat16() for length in (30, 12)]
    alone = []
    for states in hidden:
        cache = pool.open(model.span)
        pool.begin_write(cache, 0, len(states))
        alone += model.run([Chunk(cache, model.span, 0, states)])
    caches = [pool.open(model.span) for _ in hidden]
    for cache, states in zip(caches, hidden, strict=True):
        pool.begin_write(cache, 0, len(states))
    batch = [Chunk(cache, model.span, 0, states) for cache, states in zip(caches, hidden, strict=True)]
    for together, lonely in zip(model.run(batch), alone, strict=True):
        assert together.dtype == torch.bfloat16
        assert (together.float() - lonely.float()).abs().max() <= 0.02 * lonely.float().abs().max()


@pytest.mark.parametrize("family", [*FAMILIES, "mistral", "qwen2", "mixtral", "starcoder2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_start_up_comparison_accepts_what_is_exact(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    verify_span(load(make_model(tmp_path, family), Span(1, 5), dtype))


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("mistral", {"sliding_window": 4}),
        ("gemma2", {"sliding_window": 4, "head_dim": 16}),
        ("gpt_oss", {"sliding_window": 4, "head_dim": 16, "num_local_experts": 4}),
    ],
)
def test_windows_capped_logits_and_sinks_are_exact(
    family: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    verify_span(load(make_model(tmp_path, family, **overrides), Span(0, 6)))


class Wrong(SpanModel):
    """Errs by a little more than is allowed."""

    def run(self, chunks: Sequence[Chunk]) -> list[torch.Tensor]:
        return [output + 2e-4 * output.abs().max() for output in super().run(chunks)]


def test_the_start_up_comparison_refuses_what_differs(llama: Path) -> None:
    model = Wrong(load_span(open_checkpoint(str(llama)), Span(1, 3)), Span(1, 3))
    with pytest.raises(ConfigError, match="would answer differently"):
        verify_span(model)


class OwnAttention(nn.Module):
    """Attends in its own way, as families do that transformers has not moved to its interface yet."""

    def __init__(self, stock: LlamaAttention, *, wants_mask: bool) -> None:
        super().__init__()
        self.stock = stock
        self.wants_mask = wants_mask

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, None]:
        if self.wants_mask:
            hidden_states = hidden_states * kwargs["attention_mask"].shape[-1]
        return self.stock.o_proj(self.stock.q_proj(hidden_states)), None


@pytest.mark.parametrize(
    ("wants_mask", "complaint"),
    [(False, "does not go through transformers' attention interface"), (True, "cannot be split yet")],
)
def test_attention_outside_of_the_interface_is_refused_in_one_sentence(
    wants_mask: bool, complaint: str
) -> None:
    base = random_base(make_config("llama"))
    for block in find_blocks(base):
        stock = block.self_attn
        assert isinstance(stock, LlamaAttention)
        block.self_attn = OwnAttention(stock, wants_mask=wants_mask)
    with pytest.raises(ConfigError, match=complaint):
        verify_span(SpanModel(base, Span(0, 6)))


@pytest.mark.parametrize("family", ["mamba", "qwen3_next"])
def test_a_recurrent_family_is_refused_in_one_sentence(family: str) -> None:
    with torch.device("meta"):
        base = random_base(make_config(family))
    with pytest.raises(ConfigError, match="their blocks keep linear_attention"):
        SpanModel(base, Span(0, 6))


def test_the_layout_of_the_kv_cache_is_that_of_one_token(llama: Path) -> None:
    layout = load(llama, Span(1, 4), torch.bfloat16).kv_layout()
    assert [(keys.shape, values.shape) for keys, values in layout] == [((2, 1, 8), (2, 1, 8))] * 3
    assert {half.dtype for pair in layout for half in pair} == {torch.bfloat16}
