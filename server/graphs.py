"""Decode steps replayed from CUDA graphs: one launch instead of thirty for every block.

A block of a few hundred MB is read faster than Python can launch its kernels, so a GPU that is asked for one
token after the other waits for its host most of the time. Where that is possible a span's whole forward is
captured once for each number of rows (padded to a power of two) and of splits, and replayed with other
inputs: hidden states, positions, and the table that tells `decode_kernel` where each session's keys lie.

What can be captured is found out, never assumed: a forward that waits for the device once (some routers of
experts, rope by length) or that sees other than all older keys runs as before.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from server.attention import Chunk, RaggedBatch
from server.attention_kernels import Options
from server.attention_masks import RaggedMask
from server.kv_cache import PAGE_TOKENS, KVPool, SessionCache
from server.kv_extents import Pair
from server.newest import (
    Newest,
    attend_rows_of_table,
    can_attend_together,
    count_splits,
    find_kernel,
    table_of,
)
from server.rounding import MAX_DIFFERENCE
from swarm.wire.blocks import Span

logger = logging.getLogger(__name__)

MAX_ROWS = 512
SEEN_BEFORE = 3
"""So many steps of a size run before it is captured, which takes as long as some dozens of them."""


class Captured(Protocol):
    """What is captured: a `SpanModel`."""

    span: Span
    device: torch.device
    dtype: torch.dtype
    hidden_size: int

    def kv_layout(self) -> list[Pair]:
        """Keys and values of one token in each block."""

    def forward(self, batch: RaggedBatch) -> Tensor:
        """What the last block of a batch on the device gives, `[1, tokens, hidden]`."""

    def run_eagerly(self, chunks: Sequence[Chunk]) -> Tensor:
        """What `chunks` give, `[tokens, hidden]` on the CPU, kernel by kernel."""


class Key(NamedTuple):
    """Which graph: its numbers of rows and of splits."""

    rows: int
    splits: int


class CannotCapture(Exception):
    """This model's forward needs something at each step that a graph does not have."""


def padded_rows(rows: int) -> int:
    """Rows of the graph that runs `rows` sessions."""
    return 1 << (rows - 1).bit_length()


def padded_splits(splits: int) -> int:
    """Splits of the graph whose longest session has `splits`: a power of four, since those are many."""
    return 1 << (-(-(splits - 1).bit_length() // 2) * 2)


def can_replay(chunks: Sequence[Chunk], span: Span) -> bool:
    """Tell whether all of `chunks` are single tokens that pass the whole `span`."""
    return len(chunks) <= MAX_ROWS and all(
        chunk.hidden.shape[0] == 1 and chunk.span == chunk.cache.span == span and not chunk.is_long
        for chunk in chunks
    )


class DecodeGraphs:
    """The captured forwards of a span on a GPU. Compute thread only."""

    def __init__(self) -> None:
        self._is_off = False
        self._seen: Counter[Key] = Counter()
        self._graphs: dict[Key, _Graph] = {}
        self._proven: dict[Key, bool] = {}
        self._shared: _Shared | None = None
        self.replays = 0
        """Batches that were replayed."""

    def run(self, model: Captured, chunks: Sequence[Chunk]) -> Tensor | None:
        """Return what `model` makes of `chunks`, `[chunks, hidden]` on the CPU, or None: run them as ever.

        Their keys and values are cached. It is always the same model.
        """
        if self._is_off or model.device.type != "cuda" or not can_replay(chunks, model.span):
            return None
        if find_kernel() is None:
            return None
        numbers, num_splits = _numbers(chunks, model.kv_layout())
        key = Key(padded_rows(len(chunks)), padded_splits(num_splits))
        graph = self._graphs.get(key) or self._capture(model, key)
        if graph is None or not self._proven.get(key, True):
            return None
        try:
            output = graph.replay(chunks, numbers)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model runs without
            self.turn_off(_first_line(error))
            return None
        if key not in self._proven and not self._prove(key, output, model.run_eagerly(chunks)):
            return None
        self.replays += 1
        return output

    def _capture(self, model: Captured, key: Key) -> "_Graph | None":
        self._seen[key] += 1
        if self._seen[key] <= SEEN_BEFORE:
            return None
        try:
            self._shared = self._shared or _Shared.of(model)
            self._graphs[key] = _Graph(model, key, self._shared)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model runs without
            self.turn_off(_first_line(error))
        return self._graphs.get(key)

    def _prove(self, key: Key, output: Tensor, expected: Tensor) -> bool:
        """Compare what was replayed first with the forward's own; False if that is to be taken."""
        verdict = is_same(output, expected)
        if verdict is not None:
            self._proven[key] = verdict
        if verdict is False:
            logger.warning("the CUDA graph for %d rows was not exact, and is not used", key.rows)
        return verdict is True

    def turn_off(self, reason: str) -> None:
        """Run all steps kernel by kernel from now on."""
        self._is_off = True
        self._graphs.clear()
        logger.info("decode steps of this model do not run from CUDA graphs: %s", reason)


def is_same(output: Tensor, expected: Tensor) -> bool | None:
    """Tell whether rows `[rows, hidden]` are the same but for rounding; None if none of them is finite.

    Each row is judged by its own numbers: what is in the others is other people's. In half precision the
    median row counts: another order of sums may send one to another expert.
    """
    allowed, is_full = MAX_DIFFERENCE[expected.dtype], expected.dtype == torch.float32
    expected, output = expected.float(), output.float()
    is_finite = expected.isfinite().all(1)
    if not is_finite.any():
        return None
    scale = expected.abs().amax(1).clamp(min=1.0)
    differences = ((output - expected).abs().amax(1) / scale)[is_finite]
    return bool((differences.max() if is_full else differences.median()) <= allowed)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__


def _numbers(chunks: Sequence[Chunk], layout: Sequence[Pair]) -> tuple[Tensor, int]:
    """Return where `chunks` attend, `[layers, chunks, numbers]` for the kernel, and in how many splits.

    Each extent has room for its chunk then.
    """
    rooms = [
        [
            Newest(row, chunk.position, 0, chunk.cache.room(layer, chunk.position, *like))
            for row, chunk in enumerate(chunks)
        ]
        for layer, like in enumerate(layout)
    ]
    return table_of([[each.numbers for each in newest] for newest in rooms]), count_splits(rooms[0])


class _CapturedBatch(RaggedBatch):
    """Rows of single tokens that read from `tables` where they attend: other steps fill those anew."""

    def __init__(self, chunks: Sequence[Chunk], tables: Tensor, num_splits: int) -> None:
        super().__init__(chunks)
        self.hidden = self.hidden.to(tables.device)
        self.position_ids = self.position_ids.to(tables.device)
        self._tables, self._num_splits = tables, num_splits
        self._rows = torch.arange(len(chunks), device=tables.device)

    def row_offsets(self) -> Tensor:
        """Of each row its position minus its place: all rows pass all blocks."""
        return self.position_ids[0] - self._rows

    def attend(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: RaggedMask, options: Options
    ) -> Tensor:
        """Attend as ever, for rows that see all keys. Raises CannotCapture if they do not."""
        self.has_attended = True
        layer, self.layer = self.layer, None
        if layer is None or not can_attend_together(query[0], keys[0], values[0]):
            raise CannotCapture("its attention is not for the kernel")
        if not mask.is_causal or options.key_bias is not None:
            raise CannotCapture("its rows do not see all keys alike")
        table = self._tables[layer - self.chunks[0].span.start]
        output = query.new_empty((query.shape[2], query.shape[1], values.shape[3]))
        attend_rows_of_table(query[0], keys[0], values[0], (table, self._num_splits), options, output)
        return output[None]


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all graphs of a span have in common: memory for what they compute, a session that is nobody's."""

    memory: Any
    scratch: SessionCache

    @classmethod
    def of(cls, model: Captured) -> "_Shared":
        """Make it for `model`."""
        scratch = KVPool(PAGE_TOKENS * len(model.span)).open(model.span)
        return cls(torch.cuda.graph_pool_handle(), scratch)


class _Graph:
    """One captured forward, and the memory through which its inputs come.

    Rows that nobody needs are those of the session that is nobody's: one token at position 0.
    """

    def __init__(self, model: Captured, key: Key, shared: _Shared) -> None:
        """Capture. Raises whatever the forward raises if that cannot be: CannotCapture, RuntimeError."""
        hidden = torch.zeros((1, model.hidden_size), dtype=model.dtype)
        chunks = [Chunk(shared.scratch, model.span, 0, hidden)] * key.rows
        with torch.inference_mode():
            self._nobody, _ = _numbers(chunks, model.kv_layout())
            self._numbers = self._nobody.pin_memory()
            self._positions = torch.zeros((1, key.rows), dtype=torch.long).pin_memory()
            self._inputs = torch.zeros((1, key.rows, model.hidden_size), dtype=model.dtype).pin_memory()
            self._tables = self._numbers.to(model.device)
            self._batch = _CapturedBatch(chunks, self._tables, key.splits)
            self._hidden = self._batch.hidden
            self._graph = torch.cuda.CUDAGraph()
            # The stream outside is restored even where capturing breaks off, which leaves its own behind.
            with torch.cuda.stream(torch.cuda.current_stream()):
                self._output = self._capture(model, shared.memory)

    def _capture(self, model: Captured, memory: Any) -> Tensor:
        model.forward(self._batch)  # compiles kernels, and whatever is made once
        with _no_waiting():
            self._run(model)
        torch.cuda.synchronize(model.device)
        with torch.cuda.graph(self._graph, pool=memory, capture_error_mode="thread_local"):
            return self._run(model)

    def _run(self, model: Captured) -> Tensor:
        self._batch.hidden = self._hidden
        return model.forward(self._batch)

    @torch.inference_mode()
    def replay(self, chunks: Sequence[Chunk], numbers: Tensor) -> Tensor:
        """Run `chunks`, whose `numbers` are `[layers, chunks, ...]`; return `[chunks, hidden]` on the CPU."""
        used = len(chunks)
        self._numbers.copy_(self._nobody)
        self._numbers[:, :used] = numbers
        self._positions.zero_()
        for row, chunk in enumerate(chunks):
            self._positions[0, row] = chunk.position
            self._inputs[0, row] = chunk.hidden[0]
        self._tables.copy_(self._numbers, non_blocking=True)
        self._batch.position_ids.copy_(self._positions, non_blocking=True)
        self._hidden.copy_(self._inputs, non_blocking=True)
        self._graph.replay()
        return self._output[0, :used].cpu()


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Raise RuntimeError where the host would wait for the device: that cannot be captured.

    So does any other thread that waits meanwhile, which `SpanModel.turn` is for.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
