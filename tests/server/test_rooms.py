"""Room in the KV pool: who was promised some and lost it waits in line like everybody else."""

from pathlib import Path

import pytest
import torch

from server.executor import Executor
from server.kv_cache import KVGone, KVPool, SessionCache
from server.kv_spill import SpillStore
from server.rooms import Rooms
from server.session_effects import SessionKey
from swarm.wire.blocks import SessionId
from tests.server.test_executor import ALICE, BOB, SPAN, FakeRunner

PAGE = 16
FIRST = SessionKey(ALICE, SessionId(bytes(16)))
SECOND = SessionKey(BOB, SessionId(bytes(16)))


def fill(pool: KVPool, cache: SessionCache, tokens: int) -> None:
    pool.begin_write(cache, 0, tokens)
    for layer in range(len(SPAN)):
        keys = torch.ones(2, tokens, 4)
        cache.write(layer, 0, keys, keys)
    cache.used = tokens


async def test_who_comes_back_to_less_room_than_was_granted_waits_for_the_rest(tmp_path: Path) -> None:
    pool = KVPool(6 * PAGE * len(SPAN), spill_to=SpillStore(1 << 20, tmp_path))
    async with Executor(FakeRunner(), pool) as executor:
        rooms = Rooms(pool, executor)
        grant, grant_other = rooms.open(FIRST, SPAN), rooms.open(SECOND, SPAN)
        assert grant(4 * PAGE) == 4 * PAGE
        fill(pool, rooms.cache(FIRST), 2 * PAGE)
        assert await rooms.put_aside(FIRST, lambda: True)
        assert grant_other(4 * PAGE) == 4 * PAGE
        rooms.is_short.clear()

        assert not await rooms.wake(FIRST, 4 * PAGE)
        assert rooms.is_short.is_set()
        assert rooms.first_in_line() is not None
        assert not rooms.cache(FIRST).is_away
        assert await rooms.wake(FIRST, 2 * PAGE)

        rooms.close(SECOND)
        await rooms.bury()
        assert await rooms.wake(FIRST, 4 * PAGE)
        assert rooms.first_in_line() is None
        assert pool.reserved(rooms.cache(FIRST)) == 4 * PAGE


async def test_what_cannot_be_read_back_is_gone_and_the_session_may_begin_anew(tmp_path: Path) -> None:
    pool = KVPool(6 * PAGE * len(SPAN), spill_to=SpillStore(1 << 20, tmp_path))
    async with Executor(FakeRunner(), pool) as executor:
        rooms = Rooms(pool, executor)
        rooms.open(FIRST, SPAN)
        fill(pool, rooms.cache(FIRST), 2 * PAGE)
        assert await rooms.put_aside(FIRST, lambda: True)
        spilled = rooms.cache(FIRST).spilled
        assert spilled is not None
        spilled._file.truncate(10)
        with pytest.raises(KVGone):
            await rooms.wake(FIRST)
        await rooms.bury()
        assert pool.pages_in_use == 0
        assert await rooms.wake(FIRST, PAGE)
