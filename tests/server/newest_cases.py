"""Newest tokens that attend together, beside the same ones each by itself, on any device.

`python -m tests.server.newest_cases` tries them all on the CPU: Triton must be told to interpret its kernels.
"""

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from server.attention_kernels import Options, Rows, Visible, attend_rows
from server.kv_cache import KVPool, SessionCache
from server.newest import Newest, attend_newest, attend_rows_of_table, count_splits, table_of
from swarm.wire.blocks import Span

SPAN = Span(0, 1)
FORKED_AT = 32


@dataclass(frozen=True)
class Case:
    """Sessions whose newest tokens are at `positions`; every second one is a fork behind a shared prefix."""

    positions: tuple[int, ...] = (0, 1, 1023, 40, 1024, 2050)
    heads: int = 4
    kv_heads: int = 2
    dim: int = 16
    value_dim: int = 16
    softcap: float | None = None
    has_sinks: bool = False
    has_bias: bool = False
    window: int = 0
    dtype: torch.dtype = torch.float32
    layer: int = 0
    """Which of two whose tables lie one behind the other, as in a graph."""


CASES = {
    "plain": Case(),
    "one": Case(positions=(50,)),
    "many heads a key": Case(heads=21, kv_heads=1),
    "uneven": Case(dim=24, value_dim=12, heads=6),
    "capped": Case(softcap=5.0),
    "sinks": Case(has_sinks=True),
    "bias": Case(has_bias=True, heads=2),
    "window": Case(window=20),
    "long window": Case(window=1030),
    "a later layer": Case(positions=(50,), layer=1),
    "all at once": Case(window=1050, softcap=3.0, has_sinks=True, has_bias=True),
}


def compare(case: Case, device: torch.device) -> float:
    """Attend both ways; return the largest difference. Raises AssertionError if they cache differently."""
    random = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, case.dtype)

    rows, last = len(case.positions) + 2, max(case.positions) + 1
    query, keys, values = (
        noise(rows, heads, dim).transpose(0, 1)
        for heads, dim in ((case.heads, case.dim), (case.kv_heads, case.dim), (case.kv_heads, case.value_dim))
    )
    past = (noise(case.kv_heads, last, case.dim), noise(case.kv_heads, last, case.value_dim))
    options = Options(
        0.3,
        case.softcap,
        noise(case.heads) if case.has_sinks else None,
        noise(case.heads, 1, last) if case.has_bias else None,
    )
    pool = KVPool(100_000)
    together, apart = _open(pool, case, past), _open(pool, case, past)
    output = noise(rows, case.heads, case.value_dim)
    untouched = output.clone()
    newest, expected = [], untouched.clone()
    for row, position in enumerate(case.positions, start=1):
        new = (0, position, keys[:, row : row + 1], values[:, row : row + 1])
        visible = max(0, position - case.window + 1) if case.window else 0
        newest.append(Newest(row, position, visible, together[row - 1].room(*new)))
        parts = apart[row - 1].write(*new).parts(position + 1)
        seen = Visible(visible, None, is_causal=False)
        expected[row] = attend_rows(Rows(query[:, row : row + 1], parts, seen), options)[0]
    if case.layer:
        tables = table_of([[each.numbers for each in newest]] * 2).to(device)
        table = tables[case.layer], count_splits(newest)
        attend_rows_of_table(query, keys, values, table, options, output)
    else:
        attend_newest(query, keys, values, newest, options, output)
    for one, other in zip(together, apart, strict=True):
        one.used = other.used = other.used + 1
        (mine,), (same,) = pool.export_pages(one, one.used), pool.export_pages(other, other.used)
        assert all(map(torch.equal, mine, same))
    assert torch.equal(output[0], untouched[0])
    assert torch.equal(output[-1], untouched[-1])
    return (output.float() - expected.float()).abs().max().item()


def _open(pool: KVPool, case: Case, past: tuple[Tensor, Tensor]) -> list[SessionCache]:
    opened = []
    for number, position in enumerate(case.positions):
        cache = pool.open(SPAN)
        begun = min(position, FORKED_AT) if number % 2 else 0
        _write(pool, cache, past, 0, begun)
        if number % 2:
            fork = pool.fork(cache, begun)
            assert fork is not None
            cache = fork
        _write(pool, cache, past, begun, position)
        pool.begin_write(cache, position, position + 1)
        opened.append(cache)
    return opened


def _write(pool: KVPool, cache: SessionCache, past: tuple[Tensor, Tensor], position: int, end: int) -> None:
    if position < end:
        pool.begin_write(cache, position, end)
        cache.write(0, position, past[0][:, position:end], past[1][:, position:end])
        cache.used = end


if __name__ == "__main__":
    for name, case in CASES.items():
        difference = compare(case, torch.device("cpu"))
        sys.stdout.write(f"{name}: {difference:.1e}\n")
        if not difference < 1e-5:
            sys.exit(f"{name} differs by {difference}")
