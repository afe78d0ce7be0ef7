"""Decode steps replayed from CUDA graphs: one launch instead of thirty for every block.

A block of a few hundred MB is read faster than Python can launch its kernels, so a GPU that is asked for one
token after the other waits for its host most of the time. Where that is possible a span's whole forward is
captured once for each number of rows (padded to a power of two) and of splits, and replayed with other
inputs: hidden states, positions, and the table that tells `decode_kernel` where each session's keys lie.

What can be captured is found out, never assumed: a forward that waits for the device once (routers of
experts, rope by length) or that sees other than all older keys runs as before.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

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
from swarm.wire.blocks import Span

logger = logging.getLogger(__name__)

MAX_ROWS = 64
SEEN_BEFORE = 3
"""So many steps of a size run before it is captured, which takes as long as some dozens of them."""
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far a graph's first outputs may be from the forward's own, as a share of the largest where that is
above 1: with other rows beside them, sums may be taken in another order."""


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

    def __init__(self, model: Captured) -> None:
        self._model = model
        self._is_off = model.device.type != "cuda"
        self._seen: dict[tuple[int, int], int] = {}
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self._proven: set[tuple[int, int]] = set()
        self._memory: Any | None = None
        self._scratch = KVPool(PAGE_TOKENS * len(model.span)).open(model.span)
        self.replays = 0
        """Batches that were replayed."""

    def run(self, chunks: Sequence[Chunk]) -> Tensor | None:
        """Return what the span makes of `chunks`, `[chunks, hidden]` on the CPU, or None: run them as ever.

        Their keys and values are cached.
        """
        if (
            self._is_off
            or not can_replay(chunks, self._model.span)
            or find_kernel(self._model.device) is None
        ):
            return None
        numbers, num_splits = _numbers(chunks, self._model.kv_layout())
        key = (padded_rows(len(chunks)), padded_splits(num_splits))
        graph = self._graphs.get(key) or self._capture(key)
        if graph is None:
            return None
        output = graph.replay(chunks, numbers)
        if key not in self._proven and not self._prove(key, chunks, output):
            return None
        self.replays += 1
        return output

    def _capture(self, key: tuple[int, int]) -> "_Graph | None":
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= SEEN_BEFORE:
            return None
        try:
            self._memory = self._memory or torch.cuda.graph_pool_handle()
            self._graphs[key] = _Graph(self._model, key, self._scratch, self._memory)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model runs without
            self.turn_off(str(error).split("\n", 1)[0])
        return self._graphs.get(key)

    def _prove(self, key: tuple[int, int], chunks: Sequence[Chunk], output: Tensor) -> bool:
        """Run what was replayed for the first time without the graph, and compare."""
        expected = self._model.run_eagerly(chunks)
        allowed = ALLOWED[self._model.dtype] * max(1.0, float(expected.abs().max()))
        if float((output - expected).abs().max()) <= allowed:
            self._proven.add(key)
            return True
        self.turn_off("what they gave was not the same")
        return False

    def turn_off(self, reason: str) -> None:
        """Run all steps kernel by kernel from now on."""
        self._is_off = True
        self._graphs.clear()
        logger.info("decode steps of this model do not run from CUDA graphs: %s", reason)


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
    table = table_of([[each.numbers for each in newest] for newest in rooms])
    return table, count_splits(rooms[0], layout[0][0].device)


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


class _Graph:
    """One captured forward, and the memory through which its inputs come.

    Rows that nobody needs belong to a session that is nobody's, `scratch`: one token at position 0.
    """

    def __init__(self, model: Captured, key: tuple[int, int], scratch: SessionCache, memory: Any) -> None:
        """Capture. Raises whatever the forward raises if that cannot be: CannotCapture, RuntimeError."""
        rows, num_splits = key
        hidden = torch.zeros((1, model.hidden_size), dtype=model.dtype)
        self._chunks = [Chunk(scratch, model.span, 0, hidden)] * rows
        with torch.inference_mode():
            self._nobody, _ = _numbers(self._chunks, model.kv_layout())
            self._numbers = self._nobody.pin_memory()
            self._positions = torch.zeros((1, rows), dtype=torch.long).pin_memory()
            self._inputs = torch.zeros((1, rows, model.hidden_size), dtype=model.dtype).pin_memory()
            self._tables = self._numbers.to(model.device)
            self._batch = _CapturedBatch(self._chunks, self._tables, num_splits)
            self._hidden = self._batch.hidden
            self._graph = torch.cuda.CUDAGraph()
            self._output = self._capture(model, memory)

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
    """Raise RuntimeError where the host would wait for the device: that cannot be captured."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
