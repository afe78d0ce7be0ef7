"""The attention kernels against one plain softmax, for every way in which keys and rows may lie."""

import itertools

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from server.attention import ATTENTION, Chunk, RaggedBatch, RaggedCache, running_batch
from server.attention_kernels import Options, Rows, Visible, attend_rows, attend_sessions
from server.attention_masks import RaggedMask
from server.kv_cache import KVPool
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

HEADS, DIM = 6, 8


def expected(query: Tensor, keys: Tensor, values: Tensor, allowed: Tensor, options: Options) -> Tensor:
    group = query.shape[0] // keys.shape[0]
    keys, values = (half.repeat_interleave(group, 0).double() for half in (keys, values))
    logits = query.double() @ keys.transpose(1, 2) * options.scaling
    if options.key_bias is not None:
        logits = logits + options.key_bias[..., : keys.shape[1]]
    if options.softcap is not None:
        logits = torch.tanh(logits / options.softcap) * options.softcap
    logits = logits.masked_fill(~allowed, -torch.inf)
    if options.sinks is not None:
        sinks = options.sinks.double().view(-1, 1, 1).expand(-1, query.shape[1], 1)
        weights = torch.cat((logits, sinks), -1).softmax(-1)[..., :-1]
    else:
        weights = logits.softmax(-1)
    return (weights @ values).transpose(0, 1)


OPTIONS = {
    "plain": Options(0.3),
    "sinks": Options(0.3, sinks=torch.linspace(-2, 3, HEADS)),
    "softcap": Options(2.0, softcap=1.5),
    "bias": Options(0.3, key_bias=torch.randn(HEADS, 1, 320, generator=torch.Generator().manual_seed(1))),
}


@pytest.mark.parametrize("asks", OPTIONS)
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("value_dim", [DIM, 5])
def test_every_way_to_attend_equals_a_plain_softmax(
    asks: str, kv_heads: int, window: int | None, value_dim: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    mask_function = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    pool = KVPool(10_000)
    for position, tokens, prefix in itertools.product((0, 1, 16, 40, 300), (1, 2, 9), (0, 16, 290)):
        length = position + tokens
        if prefix > position:
            continue
        query = torch.randn(HEADS, tokens, DIM, generator=generator)
        keys = torch.randn(kv_heads, length, DIM, generator=generator)
        values = torch.randn(kv_heads, length, value_dim, generator=generator)
        pairs = [(keys[:, :prefix], values[:, :prefix]), (keys[:, prefix:], values[:, prefix:])]
        chunk = Chunk(pool.open(Span(0, 1)), Span(0, 1), position, torch.empty(tokens, 4))
        visible = RaggedMask(mask_function).visible(chunk, torch.float32)
        output = attend_rows(Rows(query, tuple(pairs if prefix else pairs[1:]), visible), OPTIONS[asks])
        rows, columns = torch.arange(position, length)[:, None], torch.arange(length)
        allowed = columns <= rows if window is None else (columns <= rows) & (columns > rows - window)
        reference = expected(query, keys, values, allowed, OPTIONS[asks])
        torch.testing.assert_close(output.double(), reference, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("asks", OPTIONS)
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_bf16_stays_as_near_to_it_as_its_digits_allow(asks: str, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for position, tokens, prefix in itertools.product((40, 300), (1, 5), (0, 16)):
        query = torch.randn(HEADS, tokens, DIM, generator=generator).bfloat16()
        keys, values = (
            torch.randn(kv_heads, position + tokens, DIM, generator=generator).bfloat16() for _ in range(2)
        )
        pairs = [(keys[:, :prefix], values[:, :prefix]), (keys[:, prefix:], values[:, prefix:])]
        chunk = Chunk(KVPool(100).open(Span(0, 1)), Span(0, 1), position, torch.empty(tokens, 4))
        visible = RaggedMask(causal_mask_function).visible(chunk, torch.bfloat16)
        options = OPTIONS[asks]
        if options.key_bias is not None:
            options = Options(options.scaling, key_bias=options.key_bias.bfloat16())
        output = attend_rows(Rows(query, tuple(pairs if prefix else pairs[1:]), visible), options)
        allowed = torch.arange(position + tokens) <= torch.arange(position, position + tokens)[:, None]
        reference = expected(query, keys, values, allowed, options)
        torch.testing.assert_close(output.double(), reference, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("asks", ["plain", "sinks", "softcap", "bias"])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sessions_behind_one_prefix_attend_to_it_as_each_alone_would(
    asks: str, kv_heads: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)

    def pair(tokens: int) -> tuple[Tensor, Tensor]:
        keys, values = (torch.randn(kv_heads, tokens, DIM, generator=generator) for _ in range(2))
        return keys.to(dtype), values.to(dtype)

    options, everything = OPTIONS[asks], Visible(0, None, is_causal=False)
    if options.key_bias is not None:
        options = Options(options.scaling, key_bias=options.key_bias.to(dtype))
    shared, other = pair(32), pair(16)
    prefixes = [shared, other, shared, (shared[0][:, :16], shared[1][:, :16]), shared, None]
    sessions = []
    for count, prefix in enumerate(prefixes):
        query = torch.randn(HEADS, 1, DIM, generator=generator).to(dtype)
        own = pair(3 + count)
        sessions.append(Rows(query, (own,) if prefix is None else (prefix, own), everything))
    for rows, together in zip(sessions, attend_sessions(sessions, options), strict=True):
        tolerance = 1e-6 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(together, attend_rows(rows, options), atol=tolerance, rtol=tolerance)


def test_a_window_leaves_out_keys_that_no_row_sees() -> None:
    chunk = Chunk(KVPool(100).open(Span(0, 1)), Span(0, 1), 30, torch.empty(1, 4))
    visible = RaggedMask(sliding_window_causal_mask_function(4)).visible(chunk, torch.float32)
    assert (visible.first, visible.added) == (27, None)


def test_a_causal_decode_builds_no_mask() -> None:
    chunk = Chunk(KVPool(100).open(Span(0, 1)), Span(0, 1), 30, torch.empty(1, 4))
    visible = RaggedMask(causal_mask_function).visible(chunk, torch.float32)
    assert (visible.first, visible.added, visible.is_causal) == (0, None, False)


def attend(mask: object, **wishes: object) -> Tensor:
    pool = KVPool(1000)
    cache = pool.open(Span(0, 1))
    batch = RaggedBatch([Chunk(cache, cache.span, 0, torch.randn(3, 4))])
    states = torch.randn(1, 2, 3, 8)
    with running_batch(batch):
        RaggedCache(batch, [False]).update(states, states, 0)
        function = AttentionInterface()[ATTENTION]  # type: ignore[no-untyped-call]
        output, weights = function(torch.nn.Identity(), states, states, states, mask, **wishes)
    assert weights is None
    assert isinstance(output, Tensor)
    return output


def test_keywords_that_change_nothing_are_accepted() -> None:
    mask = RaggedMask(causal_mask_function)
    output = attend(mask, position_ids=torch.arange(3), use_cache=True, output_attentions=False, dropout=0.0)
    assert output.shape == (1, 3, 2, 8)


@pytest.mark.parametrize(
    "wish", [{"position_bias": torch.zeros(1)}, {"dropout": 0.1}, {"sliding_window": 2}, {"novelty": 1}]
)
def test_keywords_that_cannot_be_honoured_are_refused(wish: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        attend(RaggedMask(causal_mask_function), **wish)


def test_attention_without_a_mask_of_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask"):
        attend(None)


def test_a_block_that_reads_anothers_keys_is_refused() -> None:
    pool = KVPool(1000)
    cache = pool.open(Span(0, 1))
    batch = RaggedBatch([Chunk(cache, cache.span, 0, torch.randn(1, 4))])
    states = torch.randn(1, 2, 1, 8)
    with pytest.raises(ConfigError, match="share keys and values"):
        batch.attend(states, states, states, RaggedMask(causal_mask_function), Options(1.0))


@pytest.mark.parametrize("method", ["get_conv_state", "update_recurrent_state", "update_indexer"])
def test_a_state_beside_keys_and_values_is_refused(method: str) -> None:
    cache = KVPool(1000).open(Span(0, 1))
    ragged = RaggedCache(RaggedBatch([Chunk(cache, cache.span, 0, torch.randn(1, 4))]), [False])
    with pytest.raises(ConfigError, match="state beside keys and values"):
        getattr(ragged, method)(None, 0)
