"""Pages are counted exactly, shared ones once, and nobody ever sees what another session wrote."""

import contextlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from server.kv_cache import KVFull, KVPool, SessionCache
from server.kv_spill import SpilledPages, SpillStore
from swarm.wire.blocks import Span

SPAN = Span(3, 5)
PAGE = 16


def pool_of(pages_per_block: int, spill_to: SpillStore | None = None) -> KVPool:
    return KVPool(pages_per_block * PAGE * len(SPAN), page_tokens=PAGE, spill_to=spill_to)


def fill(pool: KVPool, cache: SessionCache, position: int, tokens: int, mark: float) -> None:
    """Write `mark` at `[position, position + tokens)` of every layer."""
    pool.begin_write(cache, position, position + tokens)
    for layer in range(len(SPAN)):
        keys = torch.full((2, tokens, 4), float(mark + layer))
        cache.write(layer, position, keys, -keys[..., :3])
    cache.used = position + tokens


def marks(cache: SessionCache, layer: int = 0) -> list[float]:
    """Read one number per cached position, as attention would."""
    extent = cache.layers[layer]
    if extent is None:
        return []
    parts = extent.parts(cache.used)
    values = torch.cat([half for _, half in parts], 1)
    keys = torch.cat([half for half, _ in parts], 1)
    assert torch.equal(keys[..., :3], -values)
    marks: list[float] = (keys[0, :, 0] - layer).tolist()
    return marks


def test_a_session_holds_the_pages_of_what_it_reserved() -> None:
    pool = pool_of(10)
    cache = pool.open(SPAN)
    assert pool.pages_in_use == 0
    assert pool.reserve(cache, 17)
    assert pool.pages_in_use == 2 * len(SPAN)
    assert pool.reserved(cache) == 32
    assert pool.reserve(cache, 5)
    assert pool.pages_in_use == 2 * len(SPAN)
    assert pool.free_tokens(len(SPAN)) == 8 * PAGE
    pool.close(cache)
    pool.close(cache)
    assert pool.pages_in_use == 0


def test_a_reservation_that_does_not_fit_changes_nothing() -> None:
    pool = pool_of(4)
    first, second = pool.open(SPAN), pool.open(SPAN)
    assert pool.reserve(first, 3 * PAGE)
    assert not pool.reserve(second, PAGE + 1)
    assert pool.reserve(second, PAGE)
    assert not pool.reserve(first, 4 * PAGE)
    with pytest.raises(KVFull):
        pool.begin_write(first, 0, 4 * PAGE)
    assert pool.pages_in_use == pool.capacity_pages


def test_pages_above_a_position_are_given_back_but_never_what_is_cached() -> None:
    pool = pool_of(10)
    cache = pool.open(SPAN)
    fill(pool, cache, 0, 40, 1)
    pool.reserve(cache, 160)
    pool.release_above(cache, 100)
    assert pool.reserved(cache) == 112
    pool.release_above(cache, 0)
    assert pool.reserved(cache) == 48


def test_memory_of_a_longer_past_is_freed_by_the_next_write() -> None:
    pool = pool_of(100)
    cache = pool.open(SPAN)
    fill(pool, cache, 0, 1000, 1)
    fill(pool, cache, 20, 1, 2)
    pool.release_above(cache, 21)
    fill(pool, cache, 21, 1, 3)
    assert cache.layers[0] is not None
    assert cache.layers[0].keys.shape[1] <= 64
    assert marks(cache) == [1] * 20 + [2, 3]


def test_a_write_above_what_is_cached_is_refused() -> None:
    pool = pool_of(10)
    cache = pool.open(SPAN)
    fill(pool, cache, 0, 5, 1)
    with pytest.raises(ValueError, match="above the 5 cached tokens"):
        pool.begin_write(cache, 6, 7)
    pool.close(cache)
    with pytest.raises(ValueError, match="closed"):
        pool.begin_write(cache, 0, 1)


def test_a_fork_shares_whole_pages_and_takes_one_of_its_own_for_the_rest() -> None:
    pool = pool_of(20)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 40, 1)
    assert pool.pages_in_use == 3 * len(SPAN)
    child = pool.fork(parent, 35)
    assert child is not None
    assert pool.pages_in_use == 4 * len(SPAN)
    fill(pool, child, 35, 30, 2)
    fill(pool, parent, 40, 30, 3)
    assert marks(child) == [1] * 35 + [2] * 30
    assert marks(parent) == [1] * 40 + [3] * 30
    assert pool.pages_in_use == (2 + 3 + 3) * len(SPAN)


def test_a_fork_at_a_page_boundary_takes_no_page() -> None:
    pool = pool_of(4)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 64, 1)
    children = [pool.fork(parent, 64) for _ in range(50)]
    assert pool.pages_in_use == pool.capacity_pages
    for child in children:
        assert child is not None
        assert marks(child) == [1] * 64
        pool.close(child)
    pool.close(parent)
    assert pool.pages_in_use == 0


def test_a_fork_that_does_not_fit_changes_nothing() -> None:
    pool = pool_of(3)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 40, 1)
    assert pool.fork(parent, 35) is None
    assert pool.pages_in_use == 3 * len(SPAN)
    fill(pool, parent, 10, 38, 2)
    assert marks(parent) == [1] * 10 + [2] * 38


def test_a_parents_rollback_below_the_fork_leaves_the_child_alone() -> None:
    pool = pool_of(20)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 60, 1)
    child = pool.fork(parent, 50)
    assert child is not None
    fill(pool, parent, 20, 10, 2)
    assert marks(child) == [1] * 50
    assert marks(parent) == [1] * 20 + [2] * 10
    assert parent.shared_tokens == 16
    pool.close(parent)
    assert marks(child) == [1] * 50
    pool.close(child)
    assert pool.pages_in_use == 0


def test_a_childs_rollback_below_the_fork_leaves_the_parent_alone() -> None:
    pool = pool_of(20)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 60, 1)
    child = pool.fork(parent, 50)
    assert child is not None
    fill(pool, child, 5, 3, 2)
    assert child.shared is None
    assert marks(child) == [1] * 5 + [2] * 3
    assert marks(parent) == [1] * 60


def test_leaving_shared_pages_needs_pages_of_ones_own() -> None:
    pool = pool_of(4)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 64, 1)
    child = pool.fork(parent, 64)
    assert child is not None
    with pytest.raises(KVFull):
        pool.begin_write(child, 10, 12)
    assert marks(child) == [1] * 64
    pool.close(parent)
    pool.close(child)
    assert pool.pages_in_use == 0


def test_the_last_of_a_family_may_write_where_pages_were_shared() -> None:
    pool = pool_of(4)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 64, 1)
    child = pool.fork(parent, 64)
    assert child is not None
    pool.close(child)
    fill(pool, parent, 10, 54, 2)
    assert marks(parent) == [1] * 10 + [2] * 54
    assert pool.pages_in_use == 4 * len(SPAN)


def test_growth_after_a_fork_keeps_the_shared_pages_shared() -> None:
    pool = pool_of(100)
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 60, 1)
    child = pool.fork(parent, 48)
    assert child is not None
    fill(pool, parent, 60, 200, 2)
    extent = parent.layers[0]
    assert extent is not None
    assert extent.start == 48
    assert marks(parent) == [1] * 60 + [2] * 200
    assert marks(child) == [1] * 48


def test_spilling_frees_the_pages_and_restoring_is_exact_to_the_bit(tmp_path: Path) -> None:
    store = SpillStore(1_000_000, tmp_path)
    pool = pool_of(8, store)
    cache = pool.open(SPAN)
    pool.begin_write(cache, 0, 50)
    written = [torch.randn(2, 50, 4).to(dtype) for dtype in (torch.bfloat16, torch.float32)]
    for layer, keys in enumerate(written):
        cache.write(layer, 0, keys, keys * 2)
    cache.used = 50
    before = pool.progress
    assert pool.spill(cache)
    assert pool.progress == before + 2 * len(SPAN), "keys and values of every block show that it moves"
    assert (pool.pages_in_use, cache.layers) == (0, [None, None])
    assert store.used_bytes > 0
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    assert not pool.spill(cache)
    assert pool.fork(cache, 5) is None
    assert not pool.reserve(cache, 60)
    with pytest.raises(ValueError, match="spilled"):
        pool.begin_write(cache, 50, 51)
    assert pool.restore(cache)
    assert pool.pages_in_use == 4 * len(SPAN)
    assert store.used_bytes == 0
    for (keys, values), original in zip(pool.export_pages(cache, 50), written, strict=True):
        assert torch.equal(keys, original)
        assert torch.equal(values, original * 2)


def test_spilling_is_bounded_and_restoring_waits_for_pages(tmp_path: Path) -> None:
    pool = pool_of(4, SpillStore(2 * 2 * 64 * 7 * 4, tmp_path))
    first, second = pool.open(SPAN), pool.open(SPAN)
    fill(pool, first, 0, 64, 1)
    assert pool.spill(first)
    fill(pool, second, 0, 64, 2)
    assert not pool.spill(second)
    assert not pool.restore(first)
    pool.close(second)
    assert pool.restore(first)
    assert marks(first) == [1] * 64
    pool.spill(first)
    pool.close(first)
    assert pool.pages_in_use == 0
    assert not pool_of(4).spill(first)


def test_a_spilled_fork_leaves_shared_pages_in_memory(tmp_path: Path) -> None:
    pool = pool_of(40, SpillStore(1_000_000, tmp_path))
    parent = pool.open(SPAN)
    fill(pool, parent, 0, 64, 1)
    child = pool.fork(parent, 40)
    assert child is not None
    fill(pool, child, 40, 30, 2)
    in_use = pool.pages_in_use
    assert pool.spill(child)
    assert pool.pages_in_use == in_use - 3 * len(SPAN)
    fill(pool, parent, 3, 1, 5)
    assert pool.restore(child)
    assert marks(child, layer=1) == [1] * 40 + [2] * 30
    for cache in (parent, child):
        pool.close(cache)
    assert pool.pages_in_use == 0


def test_exported_pages_imported_elsewhere_are_the_same_cache() -> None:
    pool, other = pool_of(10), pool_of(10)
    cache, copy = pool.open(SPAN), other.open(SPAN)
    fill(pool, cache, 0, 20, 1)
    fill(pool, cache, 20, 30, 2)
    like = pool.export_pages(cache, 1)
    other.import_pages(copy, pool.export_pages(cache, 25), like=like)
    other.import_pages(copy, pool.export_pages(cache, 50, start=25), start=25, like=like)
    assert marks(copy) == marks(cache)
    with pytest.raises(KVFull):
        pool_of(2).import_pages(pool_of(2).open(SPAN), pool.export_pages(cache, 50), like=like)


def test_only_what_is_cached_can_be_exported() -> None:
    pool = pool_of(10)
    cache = pool.open(SPAN)
    fill(pool, cache, 0, 50, 1)
    for position, start in ((51, 0), (20, 21), (20, -1)):
        with pytest.raises(ValueError, match=r"above|cannot export"):
            pool.export_pages(cache, position, start)


def test_pages_that_are_not_of_these_blocks_are_refused() -> None:
    pool = pool_of(10)
    cache = pool.open(SPAN)
    good = (torch.zeros(2, 5, 4), torch.zeros(2, 5, 3))
    wrong: list[list[tuple[Tensor, Tensor]]] = [
        [],
        [good],
        [good, (good[0], good[0])],
        [good, (torch.zeros(3, 5, 4), good[1])],
        [good, (good[0].double(), good[1])],
        [good, (good[0][0], good[1])],
        [(good[0][0], good[1]), good],
        [good, (torch.zeros(2, 6, 4), torch.zeros(2, 6, 3))],
        [good, (torch.zeros(2, 6, 4), good[1])],
    ]
    for pages in wrong:
        with pytest.raises(ValueError, match="KV pages"):
            pool.import_pages(cache, pages, like=[good, good])
    assert pool.pages_in_use == 0
    pool.import_pages(cache, [good, good], like=[good, good])
    assert cache.used == 5


def test_a_session_closed_while_it_goes_to_disk_leaves_nothing_there(tmp_path: Path) -> None:
    pools: list[KVPool] = []
    sessions: list[SessionCache] = []

    class ClosingStore(SpillStore):
        def write(self, layers: Sequence[tuple[Tensor, Tensor] | None]) -> SpilledPages | None:
            pools[0].close(sessions[0])
            return super().write(layers)

    store = ClosingStore(1_000_000, tmp_path)
    pools.append(pool_of(10, store))
    sessions.append(pools[0].open(SPAN))
    fill(pools[0], sessions[0], 0, 50, 1)
    assert not pools[0].spill(sessions[0])
    assert (store.used_bytes, pools[0].pages_in_use) == (0, 0)


class CopyingTwin:
    """Random actions on a pool, beside a model that copies everything: marks in plain lists."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.draw = random.Random(seed)
        self.pool = pool_of(60, SpillStore(1_000_000, directory))
        self.truth: dict[SessionCache, list[float]] = {self.pool.open(SPAN): []}
        self.mark = 0.0

    def act(self) -> None:
        cache = self.draw.choice(list(self.truth))
        actions = (self.append, self.append, self.append, self.roll_back, self.fork, self.spill, self.release)
        self.draw.choice((*actions, self.open, self.close))(cache)

    def append(self, cache: SessionCache) -> None:
        self.write(cache, len(self.truth[cache]))

    def roll_back(self, cache: SessionCache) -> None:
        self.write(cache, self.draw.randint(0, len(self.truth[cache])))

    def write(self, cache: SessionCache, position: int) -> None:
        tokens = self.draw.choice([1, 1, 5, 40])
        self.mark += 1
        if not self.pool.restore(cache):
            return
        with contextlib.suppress(KVFull):
            fill(self.pool, cache, position, tokens, self.mark)
            self.truth[cache] = self.truth[cache][:position] + [self.mark] * tokens

    def fork(self, cache: SessionCache) -> None:
        position = self.draw.randint(0, len(self.truth[cache]))
        if cache.spilled is None:
            child = self.pool.fork(cache, position)
            if child is not None:
                self.truth[child] = self.truth[cache][:position]

    def spill(self, cache: SessionCache) -> None:
        self.pool.spill(cache)

    def release(self, cache: SessionCache) -> None:
        self.pool.release_above(cache, 0)

    def open(self, cache: SessionCache) -> None:
        self.truth[self.pool.open(SPAN)] = []

    def close(self, cache: SessionCache) -> None:
        self.open(cache)
        self.pool.close(cache)
        del self.truth[cache]


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_writes_forks_rollbacks_spills_and_closes_is_exact_and_counts_to_zero(
    seed: int, tmp_path: Path
) -> None:
    twin = CopyingTwin(seed, tmp_path)
    for _ in range(150):
        twin.act()
        for session, expected in twin.truth.items():
            if session.spilled is None:
                assert marks(session, layer=1) == expected
        shared = {id(session.shared): session.shared.pages for session in twin.truth if session.shared}
        own = sum(session.own_pages for session in twin.truth)
        assert twin.pool.pages_in_use == own + sum(shared.values()) <= twin.pool.capacity_pages
    for cache in twin.draw.sample(list(twin.truth), len(twin.truth)):
        twin.pool.close(cache)
    assert twin.pool.pages_in_use == 0
