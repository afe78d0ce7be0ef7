"""When KV pages are short: take back what nobody uses, then put sessions aside, one after the other."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping

from server.driver import SessionDriver
from server.rooms import Rooms
from server.session_effects import SessionKey
from server.session_table import SessionTable
from server.sessions import HopSession
from server.victims import Candidate, choose_victim
from server.waiting_line import rank_of

logger = logging.getLogger(__name__)

LOOK_AGAIN_S = 0.25


async def make_room_forever(
    table: SessionTable, rooms: Rooms, drivers: Mapping[SessionKey, SessionDriver]
) -> None:
    """Make room whenever somebody asked for some that was not there."""
    while True:
        await rooms.is_short.wait()
        rooms.is_short.clear()
        await rooms.bury()
        if _trim(table, rooms):
            continue
        key = choose_victim(_candidates(table, rooms, drivers), rooms.first_in_line())
        if key is None:
            await asyncio.sleep(LOOK_AGAIN_S)
        else:
            await _put_aside(table, rooms, drivers[key].session)


def _trim(table: SessionTable, rooms: Rooms) -> bool:
    """Take back what idle sessions were granted and do not use; False if there was nothing of it."""
    idle = [session for session in table.sessions() if session.is_idle]
    trimmed = [rooms.trim(session.key, session.trim()) for session in idle]
    return any(trimmed)


async def _put_aside(table: SessionTable, rooms: Rooms, session: HopSession) -> None:
    key = session.key
    is_aside = await rooms.put_aside(key, lambda: session.is_idle)
    if not is_aside and session.is_idle and table.get(key) is session:
        logger.info("no place to spill: a session's cache is dropped and will be replayed")
        session.drop_cache()
        rooms.empty(key)
        await rooms.bury()


def _candidates(
    table: SessionTable, rooms: Rooms, drivers: Mapping[SessionKey, SessionDriver]
) -> Iterator[Candidate]:
    now, greedy = time.monotonic(), rooms.greedy()
    for key, driver in drivers.items():
        session = driver.session
        cache = rooms.cache(key) if table.get(key) is session else None
        if cache is None or cache.is_away or not cache.own_pages:
            continue
        rank = rank_of(key, is_greedy=key.client in greedy)
        is_detached = table.holder(key) is None
        yield Candidate(key, rank, now - driver.last_used_s, is_detached, session.is_idle)
