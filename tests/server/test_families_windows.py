"""Blocks with a window keep what can be read again and no more, and whoever goes back too far is told."""

import contextlib
import random
from pathlib import Path

import pytest
import torch

from server.kv_cache import KVFull, KVGone, KVPool, SessionCache
from server.kv_extents import WINDOW_SPARE_TOKENS
from server.kv_spill import SpillStore
from swarm.errors import ConfigError
from swarm.wire.blocks import Span
from tests.models import WINDOW, make_model
from tests.server.local_chain import MAX_LOGIT_DIFFERENCE, LocalChain, Session, some_ids

BACK = 64
LONGEST_STEP = 90
LOCAL = {
    "mistral": range(6),
    "gemma3": (0, 2, 4),
    "gemma2": (0, 2, 4),
    "gpt-oss": (0, 2, 4),
    "llama4": (0, 1, 2, 4, 5),
}


SLOW = {"gemma2", "gpt-oss", "llama4"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in LOCAL],
)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def chain(family: str, tmp_path_factory: pytest.TempPathFactory) -> LocalChain:
    path = make_model(tmp_path_factory.mktemp("models"), family)
    return LocalChain(path, (0, 1, 4, 6), rollback_tokens=BACK)


def talk(chain: LocalChain, session: Session, num_tokens: int) -> None:
    """Go on for `num_tokens`, in chunks and single tokens; then compare them all."""
    end = len(session.ids) + num_tokens
    outputs: list[torch.Tensor] = []
    while (left := end - len(session.ids)) > 0:
        count = min(left, (LONGEST_STEP, 1, 40, 1, 1)[len(outputs) % 5])
        outputs += chain.step((session, some_ids(count, seed=len(session.ids))))
    assert chain.difference(session, torch.cat(outputs)) <= MAX_LOGIT_DIFFERENCE


def held_tokens(session: Session) -> list[int]:
    """Room for tokens in each block's memory."""
    extents = [extent for cache in session.caches for extent in cache.layers]
    return [0 if extent is None else extent.end - extent.first for extent in extents]


def test_a_family_s_masks_say_which_blocks_have_a_window(family: str, chain: LocalChain) -> None:
    assert chain.windows == dict.fromkeys(LOCAL[family], WINDOW)


def test_a_long_session_stays_exact_in_memory_that_does_not_grow(family: str, chain: LocalChain) -> None:
    session = chain.open()
    talk(chain, session, 700)
    most = WINDOW + BACK + LONGEST_STEP + WINDOW_SPARE_TOKENS
    for block, tokens in enumerate(held_tokens(session)):
        assert tokens <= most if block in LOCAL[family] else tokens >= 700
    for cache in session.caches:
        pages = chain.pool.pages_for(cache, cache.used)
        in_full = cache.windows.count(0) * -(-cache.used // 16)
        assert pages <= in_full + sum(map(bool, cache.windows)) * -(
            -(WINDOW + BACK + LONGEST_STEP + 16) // 16
        )
        chain.pool.release_above(cache, 0)
        assert cache.own_pages == pages


def test_a_session_goes_back_as_far_as_it_may_and_is_told_where_it_may_not(chain: LocalChain) -> None:
    session = chain.open()
    talk(chain, session, 400)
    lowest = {cache.lowest for cache in session.caches if any(cache.windows)}.pop()
    assert lowest >= 400 - LONGEST_STEP - BACK
    del session.ids[lowest:]
    talk(chain, session, 3)
    before = [(cache.used, cache.own_pages) for cache in session.caches]
    for cache in session.caches:
        if any(cache.windows):
            with pytest.raises(KVGone, match="are gone"):
                chain.pool.begin_write(cache, lowest - 1, lowest + 5)
    assert [(cache.used, cache.own_pages) for cache in session.caches] == before
    talk(chain, session, 5)
    del session.ids[:]
    talk(chain, session, 50)


def test_forks_share_what_is_held_and_are_refused_where_it_is_not(chain: LocalChain) -> None:
    pages_before = chain.pool.pages_in_use
    parent = chain.open()
    talk(chain, parent, 300)
    child = chain.fork(parent, 290)
    talk(chain, parent, 200)
    talk(chain, child, 10)
    grandchild = chain.fork(child, 295)
    for session in (child, grandchild, parent):
        talk(chain, session, 300)
    for cache in parent.caches:
        other = chain.pool.fork(cache, 300)
        assert (other is None) == any(cache.windows)
        if other is not None:
            chain.pool.close(other)
    anew = chain.fork(parent, 0)
    for session in (parent, anew, grandchild, child):
        talk(chain, session, 30)
        chain.close(session)
    assert chain.pool.pages_in_use == pages_before


def test_spilled_sessions_and_forks_come_back_exact(family: str, tmp_path: Path) -> None:
    chain = LocalChain(make_model(tmp_path, family), (0, 6), rollback_tokens=BACK)
    chain.pool = KVPool(
        100_000, spill_to=SpillStore(1 << 24, tmp_path), windows=chain.windows, rollback_tokens=BACK
    )
    parent = chain.open()
    talk(chain, parent, 400)
    child = chain.fork(parent, 370)
    talk(chain, child, 300)
    for session in (parent, child, parent):
        assert chain.pool.spill(session.caches[0])
        assert chain.pool.restore(session.caches[0])
        del session.ids[-20:]
        talk(chain, session, 60)


def test_pages_copied_to_another_server_hold_all_that_is_read_from_there_on(
    family: str, tmp_path: Path
) -> None:
    chain = LocalChain(make_model(tmp_path, family), (0, 6), rollback_tokens=BACK)
    session = chain.open()
    talk(chain, session, 400)
    (cache,) = session.caches
    pages = chain.pool.export_pages(cache, 380)
    with pytest.raises(ValueError, match="are gone"):
        chain.pool.export_pages(cache, cache.lowest - 1)
    copy = chain.pool.open(cache.span)
    chain.pool.import_pages(copy, pages, like=[(keys[:, :1], values[:, :1]) for keys, values in pages])
    there = Session([copy], session.ids[:380])
    talk(chain, there, 120)
    with pytest.raises(KVGone):
        chain.pool.begin_write(copy, 379, 390)


def test_a_row_that_sees_what_was_left_behind_is_an_error_and_no_guess(tmp_path: Path) -> None:
    chain = LocalChain(make_model(tmp_path, "llama"), (0, 6))
    assert chain.windows == {}
    chain.pool = KVPool(100_000, windows={2: WINDOW}, rollback_tokens=0)
    session = chain.open()
    chain.step((session, some_ids(200, seed=1)))
    with pytest.raises(ConfigError, match="keys that its windows have left behind"):
        chain.step((session, some_ids(200, seed=2)))


SPAN = Span(3, 6)
WINDOWS = {3: 7, 5: 40}


class Twin:
    """Random actions on a pool of blocks with and without windows, beside plain lists of marks."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.draw = random.Random(seed)
        spill = SpillStore(1_000_000, directory)
        self.pool = KVPool(200 * 16 * 3, spill_to=spill, windows=WINDOWS, rollback_tokens=30)
        self.truth: dict[SessionCache, list[float]] = {self.pool.open(SPAN): []}
        self.mark = 0.0
        self.num_refused = 0

    def act(self) -> None:
        cache = self.draw.choice(list(self.truth))
        actions = (self.append, self.append, self.append, self.go_back, self.fork, self.spill, self.copy)
        self.draw.choice(actions)(cache)
        if len(self.truth) > 5:
            self.pool.close(cache)
            del self.truth[cache]

    def append(self, cache: SessionCache) -> None:
        self.write(cache, len(self.truth[cache]))

    def go_back(self, cache: SessionCache) -> None:
        self.write(cache, self.draw.randint(0, len(self.truth[cache])))

    def write(self, cache: SessionCache, position: int) -> None:
        tokens = self.draw.choice([1, 5, 40, 120])
        self.mark += 1
        if not self.pool.restore(cache):
            return
        if 0 < position < cache.lowest:
            with pytest.raises(KVGone):
                self.pool.begin_write(cache, position, position + tokens)
            self.num_refused += 1
            return
        with contextlib.suppress(KVFull):
            self.pool.begin_write(cache, position, position + tokens)
            for layer in range(len(SPAN)):
                keys = torch.full((1, tokens, 2), self.mark)
                cache.write(layer, position, keys, -keys)
            cache.used = position + tokens
            self.truth[cache] = self.truth[cache][:position] + [self.mark] * tokens

    def fork(self, cache: SessionCache) -> None:
        position = self.draw.randint(0, len(self.truth[cache]))
        if cache.spilled is None:
            child = self.pool.fork(cache, position)
            if child is not None:
                self.truth[child] = self.truth[cache][:position]

    def spill(self, cache: SessionCache) -> None:
        self.pool.spill(cache)
        self.pool.release_above(cache, 0)

    def copy(self, cache: SessionCache) -> None:
        if cache.used and not cache.is_away:
            position = self.draw.randint(max(1, cache.lowest), cache.used)
            pages = self.pool.export_pages(cache, position)
            copy = self.pool.open(SPAN)
            with contextlib.suppress(KVFull):
                self.pool.import_pages(copy, pages, like=pages)
                self.truth[copy] = self.truth[cache][:position]

    def check(self, cache: SessionCache) -> None:
        """Whatever a step may read is there, and what is reserved is enough for all that is cached."""
        assert self.pool.reserved(cache) >= cache.used
        for extent, window in zip(cache.layers, cache.windows, strict=True):
            if extent is not None:
                needed = max(0, cache.lowest - window + 1) if window else 0
                assert extent.first <= needed
                keys, values = extent.view(needed, cache.used)
                assert keys[0, :, 0].tolist() == self.truth[cache][needed:]
                assert torch.equal(keys, -values)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_steps_forks_spills_and_copies_keeps_what_can_be_read(seed: int, tmp_path: Path) -> None:
    twin = Twin(seed, tmp_path)
    for _ in range(120):
        twin.act()
        for cache in twin.truth:
            if cache.spilled is None:
                twin.check(cache)
        shared = {id(cache.shared): cache.shared.pages for cache in twin.truth if cache.shared}
        own = sum(cache.own_pages for cache in twin.truth)
        assert twin.pool.pages_in_use == own + sum(shared.values()) <= twin.pool.capacity_pages
    for cache in twin.truth:
        twin.pool.close(cache)
    assert twin.pool.pages_in_use == 0


def test_a_session_without_end_holds_the_same_pages_if_all_its_blocks_have_windows() -> None:
    pool = KVPool(40 * 16 * 2, windows={0: 32, 1: 32}, rollback_tokens=30)
    cache = pool.open(Span(0, 2))
    most = 0
    for position in range(0, 20_000, 50):
        pool.begin_write(cache, position, position + 50)
        for layer in range(2):
            cache.write(layer, position, torch.zeros(1, 50, 2), torch.zeros(1, 50, 2))
        cache.used = position + 50
        most = max(most, cache.own_pages)
    assert most <= 2 * -(-(32 + 30 + 50 + 16) // 16)
