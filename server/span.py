"""A span of a model's blocks that runs ragged batches, for any family, through the family's own forward.

Rope per layer type, masks and layer types live in a model's forward, not in its blocks. So a span is the
whole `*Model`, as block_loader makes it: a full-length list of blocks in which foreign ones, and the ends
that are the client's, let hidden states through. Our input replaces whatever reaches the first own block:
what a family does to embeddings is the client's work too.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from server.adapters import find_adapter
from server.attention import (
    ATTENTION,
    Chunk,
    RaggedBatch,
    RaggedCache,
    current_batch,
    running_batch,
)
from server.attention_masks import RaggedMask
from server.graphs import DecodeGraphs
from server.kv_cache import PAGE_TOKENS, KVPool
from server.kv_extents import Pair
from server.rope import steady_rope
from swarm.checkpoint.rope_lengths import short_positions
from swarm.checkpoint.skeleton import PassThrough, cache_keyword, find_layers
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

_WINDOW_NAMES = ("sliding_window", "attention_chunk_size")
"""Where configs say how far back a row sees; whether its blocks heed it, their masks tell."""
_KEPT_LAYER_TYPES = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_GPU_TURN = threading.Lock()
"""While a forward is captured, no step of this process may wait for a GPU: see graphs.py."""


@dataclass(slots=True)
class Pulse:
    """Shows that a long batch moves."""

    num_blocks: int = 0
    """Blocks that have run, over all batches."""


class OwnBlock(nn.Module):
    """A block that only those rows pass whose span contains it."""

    def __init__(
        self, block: nn.Module, index: int, pulse: Pulse, *, is_first: bool, returns_tuple: bool
    ) -> None:
        super().__init__()
        self.block = block
        self._index = index
        self._pulse = pulse
        self._is_first = is_first
        self._returns_tuple = returns_tuple

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the block on the active rows of `hidden_states` [1, tokens, hidden]; the others stay."""
        batch = current_batch()
        if self._is_first:
            hidden_states = batch.hidden
        index = batch.enter(self._index).index
        if index is None:
            output = _first_of(self.block(hidden_states, *args, **kwargs))
        elif index.numel():
            args, kwargs = _pick((args, kwargs), hidden_states.shape[1], index)
            active = _first_of(self.block(hidden_states[:, index], *args, **kwargs))
            output = hidden_states.index_copy(1, index, active)
        else:
            output = hidden_states
        if not batch.has_attended:
            raise ConfigError("this model's attention does not go through transformers' attention interface")
        batch.hidden = output
        self._pulse.num_blocks += 1
        return (output, None) if self._returns_tuple else output


class SpanModel:
    """Consecutive blocks of a model, ready to run. One thread at a time: the compute thread."""

    def __init__(self, model: PreTrainedModel, span: Span) -> None:
        """Take over `model`, a family's base model as `block_loader.load_span` returns it for `span`.

        Raises ConfigError if its blocks keep what a server cannot keep for them; whether they can be split
        at all is for `verify.verify_span` to find out.
        """
        self.span = span
        self.model = model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        self.adapter = find_adapter(model.config.model_type)
        self.hidden_size: int = model.config.hidden_size
        self.max_positions = short_positions(model.config)
        """Tokens that a session may have which is not long; None if rope knows no such limit."""
        self._sliding = [kind != "full_attention" for kind in layer_types(model.config)]
        blocks = find_blocks(model)
        own = blocks[span.start]
        self.device = next(own.parameters()).device
        kept = {p.dtype for p in own.parameters() if p.is_floating_point()}
        self.dtype = min(kept, key=lambda dtype: dtype.itemsize)  # routers may be kept in fp32
        self.turn = _GPU_TURN if self.device.type == "cuda" else None
        """Held by the executor that uses the device: one at a time, where a process has several too."""
        steady_rope(model)
        self._pulse = Pulse()
        self._wrap(blocks)
        model.config._attn_implementation = ATTENTION
        self._cache_keyword = cache_keyword(model)
        self.graphs = DecodeGraphs()

    def _wrap(self, blocks: nn.ModuleList) -> None:
        returns_tuple = self.adapter is not None and self.adapter.returns_tuple
        returns_tuple |= any(isinstance(block, PassThrough) and block.returns_tuple for block in blocks)
        for index in range(self.span.start, self.span.end):
            if self.adapter is not None:
                self.adapter.adapt(blocks[index])
            is_first = index == self.span.start
            blocks[index] = OwnBlock(
                blocks[index], index, self._pulse, is_first=is_first, returns_tuple=returns_tuple
            )

    @property
    def progress(self) -> int:
        """Blocks that have run, over all batches. From any thread."""
        return self._pulse.num_blocks

    def own_block(self, index: int) -> nn.Module:
        """Return block `index` of the model, without what stands around it here."""
        block = find_blocks(self.model)[index]
        assert isinstance(block, OwnBlock)
        return block.block

    def kv_layout(self) -> list[Pair]:
        """Return keys and values of one token in each block: the shape and dtype of all that will be cached.

        Runs one token through the span. Compute thread only.
        """
        return self._first_token[0]

    @property
    def windows(self) -> dict[int, int]:
        """How many keys a row sees in those blocks where it does not see all: the family's masks say so.

        Runs one token through the span. Compute thread only.
        """
        config = self.model.config
        named = (getattr(config, name, None) for name in _WINDOW_NAMES)
        candidates = {number for number in named if isinstance(number, int) and number > 0}
        found = {layer: mask.find_window(candidates) for layer, mask in self._first_token[1].items()}
        return {layer: window for layer, window in found.items() if window}

    @cached_property
    def _first_token(self) -> tuple[list[Pair], dict[int, RaggedMask]]:
        pool = KVPool(PAGE_TOKENS * len(self.span))
        cache = pool.open(self.span)
        pool.begin_write(cache, 0, 1)
        batch = RaggedBatch([Chunk(cache, self.span, 0, torch.zeros(1, self.hidden_size))])
        with _on(self.device):
            self._run(batch)
        cache.used = 1
        return pool.export_pages(cache, 1), batch.masks

    def run(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Run all `chunks` as one batch; return [tokens, hidden] for each, in their order, on the CPU.

        Their keys and values are cached, and each cache's `used` is set. Raises whatever the model raises;
        what the chunks' caches hold above their positions is then undefined, and not counted as used.
        """
        with _on(self.device):
            output = self.graphs.run(self, chunks)
            if output is None:
                output = self.run_eagerly(chunks)
        for chunk in chunks:
            chunk.cache.used = chunk.end
        if len(chunks) == 1:
            return [output]
        # A view would keep the whole batch in memory for as long as somebody needs its rows.
        return [rows.clone() for rows in torch.split(output, [chunk.hidden.shape[0] for chunk in chunks])]

    def run_eagerly(self, chunks: Sequence[Chunk]) -> Tensor:
        """Run `chunks` kernel by kernel; return `[tokens, hidden]` of all of them, in order, on the CPU."""
        batch = RaggedBatch(chunks)
        output = self._run(batch)
        found = {place.chunk: output[place.first : place.last] for place in batch.places}
        return found[chunks[0]] if len(chunks) == 1 else torch.cat([found[chunk] for chunk in chunks])

    def _run(self, batch: RaggedBatch) -> Tensor:
        with torch.inference_mode():
            batch.hidden = batch.hidden.to(self.device, self.dtype)
            batch.position_ids = batch.position_ids.to(self.device)
            return self.forward(batch)[0].cpu()

    def forward(self, batch: RaggedBatch) -> Tensor:
        """Run a `batch` that lies on the device; return what its last blocks give, `[1, tokens, hidden]`."""
        with running_batch(batch):
            cache = {self._cache_keyword: RaggedCache(batch, self._sliding)}
            inputs = {"inputs_embeds": batch.hidden, "position_ids": batch.position_ids}
            self.model(**inputs, use_cache=True, **cache)
            return batch.hidden


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Make `device` the current one, where kernels are launched that were not told another."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def find_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the list of blocks of a base model. Raises ConfigError if there is none."""
    blocks = model.get_submodule(find_layers(model, model.config.num_hidden_layers))
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def layer_types(config: PretrainedConfig) -> list[str]:
    """Return the kind of attention of every block, as transformers calls it.

    Raises ConfigError for blocks that keep something else than keys and values, or keep others'.
    """
    kinds: list[str] | None = getattr(config, "layer_types", None)
    kinds = kinds or ["full_attention"] * int(config.num_hidden_layers)
    foreign = sorted(set(kinds) - _KEPT_LAYER_TYPES)
    if foreign or getattr(config, "num_kv_shared_layers", None):
        raise ConfigError(
            f"{config.model_type} models cannot be split yet: their blocks keep"
            f" {', '.join(foreign) or 'keys and values in common'}"
        )
    return list(kinds)


def _first_of(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _pick(thing: Any, tokens: int, index: Tensor) -> Any:
    """Pick rows `index` from every tensor `[1, tokens, ...]` inside `thing`; leave all else as it is."""
    if isinstance(thing, Tensor):
        is_per_token = thing.dim() > 1 and thing.shape[0] == 1 and thing.shape[1] == tokens
        return thing[:, index] if is_per_token else thing
    if isinstance(thing, tuple | list):
        return type(thing)(_pick(each, tokens, index) for each in thing)
    if isinstance(thing, dict):
        return {name: _pick(each, tokens, index) for name, each in thing.items()}
    return thing
