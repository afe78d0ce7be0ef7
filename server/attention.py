"""Ragged batches through transformers' own models: many sessions on one token axis.

A batch is `[1, total_tokens, hidden]`: the tokens of several sessions, one after the other. Linear layers
see it as one matrix. Attention is told apart here, through three hooks of transformers:

    AttentionMaskInterface   hands us the family's mask *function*; we keep it, nothing is built
    Cache.update             tells which layer runs; what attention gets is cached, not what is given here,
                             since some families unpack keys and values from it only then
    AttentionInterface       attention of a layer: each session's new keys and values go to its own extent,
                             its rows attend to what is there

Example: sessions at positions 40 (decoding, 1 token) and 0 (a prompt of 3) make a batch of 4 tokens with
position ids [40, 0, 1, 2]; row 0 attends to 41 keys of its session, rows 1 to 3 to 3 keys of theirs.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache

from server.attention_kernels import Options, Rows, attend_sessions
from server.attention_masks import Device, MaskFunction, RaggedMask
from server.kv_cache import SessionCache
from server.newest import Newest, attend_newest, can_attend_together
from swarm.errors import ConfigError
from swarm.wire.blocks import Span

ATTENTION = "murmur_ragged"
"""The name under which both interfaces know us."""

_HARMLESS = frozenset({"position_ids", "use_cache", "cache_position", "is_causal", "output_router_logits"})
"""Keywords that models pass along to attention and that change nothing here."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Tokens of one session that pass a span in one batch.

    `hidden` [tokens, hidden] are the inputs of block `span.start` at positions from `position` on. Those of a
    session that `is_long` are rotated as in a sequence beyond the original length of `longrope`.
    """

    cache: SessionCache
    span: Span
    position: int
    hidden: Tensor
    is_long: bool = False

    @property
    def end(self) -> int:
        """Tokens cached once this chunk has run."""
        return self.position + self.hidden.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One chunk's place among the rows that pass a block: `[first, last)`."""

    chunk: Chunk
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The rows that pass a block. `index` picks them from the batch; None means all of them."""

    places: tuple[Place, ...]
    index: Tensor | None


class RaggedBatch:
    """Chunks that run together, and where each one's rows are."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = sorted(chunks, key=lambda chunk: (chunk.span.start, chunk.span.end))
        self.places = _places_of(self.chunks)
        self.hidden = torch.cat([chunk.hidden for chunk in self.chunks])[None]
        """Hidden states `[1, tokens, hidden]` before the first own block, then after the last that ran."""
        self.segment = Segment(self.places, None)
        self.layer: int | None = None
        """The layer that has new keys and values: set by the cache, taken by attention."""
        self.has_attended = True
        """Whether the block that ran last called our attention."""
        self.masks: dict[int, RaggedMask] = {}
        """What each layer that has run was told to see."""
        self.notes: dict[object, Any] = {}
        """What an adapter wants to compute once per batch."""

    @cached_property
    def position_ids(self) -> Tensor:
        """Positions of all tokens in their own sessions, `[1, tokens]`."""
        return _ranges((chunk.position, chunk.end) for chunk in self.chunks)[None]

    def row_offsets(self) -> Tensor:
        """Of each row that passes the block that runs: its position minus its place among those rows."""
        offsets = [
            torch.full((place.last - place.first,), place.chunk.position - place.first, device="cpu")
            for place in self.segment.places
        ]
        return torch.cat(offsets).to(self.hidden.device)

    @cached_property
    def long_rows(self) -> Tensor:
        """Rows of sessions that are long, among all rows."""
        return _ranges((place.first, place.last) for place in self.places if place.chunk.is_long)

    def enter(self, block: int) -> Segment:
        """Choose the rows that pass `block`, and remember the choice for its attention."""
        inside = [place for place in self.places if place.chunk.span.start <= block < place.chunk.span.end]
        if len(inside) == len(self.places):
            self.segment = Segment(self.places, None)
        else:
            index = _ranges((place.first, place.last) for place in inside).to(self.hidden.device)
            self.segment = Segment(_places_of([place.chunk for place in inside]), index)
        self.has_attended = not inside
        return self.segment

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: RaggedMask, options: Options
    ) -> Tensor:
        """Cache `keys` and `values` [1, kv_heads, tokens, dim]; return `[1, tokens, heads, value_dim]`.

        `query` is [1, heads, tokens, dim]. Raises ConfigError if no layer has said that these are its own.
        """
        self.has_attended = True
        layer, self.layer = self.layer, None
        if layer is None:
            raise ConfigError("this model's blocks share keys and values, which Murmur cannot split yet")
        self.masks[layer] = mask
        together = can_attend_together(query[0], keys[0], values[0])
        newest: list[Newest] = []
        others: list[tuple[Place, Rows]] = []
        for place in self.segment.places:
            chunk, rows = place.chunk, slice(place.first, place.last)
            new = (layer - chunk.cache.span.start, chunk.position, keys[0, :, rows], values[0, :, rows])
            visible = mask.visible(chunk, query.dtype)
            if together and place.last - place.first == 1 and visible.added is None:
                extent = chunk.cache.room(*new)
                newest.append(Newest(place.first, chunk.position, visible.first, extent))
            else:
                extent = chunk.cache.write(*new)
                seen = Rows(query[0, :, rows], extent.parts(chunk.end), visible, extent.first)
                others.append((place, seen))
            if visible.first < extent.first:
                raise ConfigError("this model's attention reads keys that its windows have left behind")
        outputs = attend_sessions([rows for _, rows in others], options)
        if not newest:
            return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None]
        output = query.new_empty((query.shape[2], query.shape[1], values.shape[3]))
        attend_newest(query[0], keys[0], values[0], newest, options, output)
        for (place, _), found in zip(others, outputs, strict=True):
            output[place.first : place.last] = found
        return output[None]


class RaggedCache(Cache):
    """What a model takes for its KV cache: tells the batch which layer runs.

    It claims to be empty and to keep every layer in full, since masks and positions are ours. Whatever else a
    model may want to keep (recurrent or convolution states, an index) it does not have, and says so.
    """

    def __init__(self, batch: RaggedBatch, sliding: list[bool]) -> None:
        super().__init__(layers=[])
        self._batch = batch
        self._sliding = sliding

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Note the layer; return the new keys and values alone, which are cached when attention gets them."""
        self._batch.layer = layer_idx
        return key_states, value_states

    def get_seq_length(self, layer_idx: int | None = None) -> Any:
        """Return 0 to a model. A block, which names its layer, counts its rows on from here: return, for each
        row of the batch, how far its position is from its number."""
        return 0 if layer_idx is None else self._batch.row_offsets()

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return the size of a mask that nobody builds."""
        return query_length, 0

    @property
    def is_sliding(self) -> list[bool]:
        """Which layers have a window: transformers picks the mask function by it."""
        return self._sliding

    @property
    def is_linear(self) -> list[bool]:
        """No layer is recurrent."""
        return [False] * len(self._sliding)

    @property
    def is_dummy(self) -> list[bool]:
        """Every layer keeps keys of its own."""
        return [False] * len(self._sliding)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("this model keeps a state beside keys and values, which Murmur cannot split yet")

    get_conv_state = update_conv_state = _refuse
    get_recurrent_state = update_recurrent_state = _refuse
    has_previous_state = update_indexer = _refuse


_running: ContextVar[RaggedBatch] = ContextVar("the batch that runs in this thread")


@contextlib.contextmanager
def running_batch(batch: RaggedBatch) -> Iterator[None]:
    """Make `batch` the one that attention of this thread works for."""
    token = _running.set(batch)
    try:
        yield
    finally:
        _running.reset(token)


def current_batch() -> RaggedBatch:
    """Return the batch that runs in this thread."""
    return _running.get()


def _attend(  # noqa: PLR0913 - transformers' signature
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention interface wants it. Raises ConfigError for what we cannot honour.

    `sliding_window` must be what the mask function says as well, for we follow only the latter.
    """
    unknown = [name for name, thing in others.items() if name not in _HARMLESS and not _is_nothing(thing)]
    if unknown or dropout:
        wish = ", ".join(unknown) or "dropout"
        raise ConfigError(f"this model's attention wants {wish}, which Murmur does not know yet")
    if not isinstance(attention_mask, RaggedMask) or (sliding_window and attention_mask.is_causal):
        raise ConfigError("this model does not take its attention mask from transformers' mask interface")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    options = Options(scaling, softcap, s_aux)
    return current_batch().attend(query, key, value, attention_mask, options), None


def _is_nothing(thing: Any) -> bool:
    return thing is None or thing is False


def _keep_mask_function(
    *, mask_function: MaskFunction, use_vmap: bool = False, device: Device = "cpu", **_: Any
) -> RaggedMask:
    return RaggedMask(mask_function, use_vmap, device)


def _ranges(bounds: Iterable[tuple[int, int]]) -> Tensor:
    # On the CPU: to copy them all to a GPU is quicker than to start a small kernel for each.
    ranges = [torch.arange(first, last, device="cpu") for first, last in bounds]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.long, device="cpu")


def _places_of(chunks: Sequence[Chunk]) -> tuple[Place, ...]:
    places, first = [], 0
    for chunk in chunks:
        places.append(Place(chunk, first, first + chunk.hidden.shape[0]))
        first = places[-1].last
    return tuple(places)


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, _keep_mask_function)
