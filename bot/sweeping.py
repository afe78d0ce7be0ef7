"""What is done once a minute: what was not heard of is settled and ended, and what is old forgotten."""

import logging
from collections.abc import Callable, Iterable

from bot.receiving.reception import Desk
from storage.amounts import DAY_MS
from storage.forgotten import purge_forgotten
from storage.inbox import purge_inbox
from storage.ledger import settle_expired
from storage.privacy import purge_transcripts
from storage.transcript import end, open_turns

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
KEEP_EVENTS_MS = 7 * DAY_MS


async def sweep(
    desk: Desk, platforms: Iterable[str], retention_days: int, is_running: Callable[[str], bool]
) -> None:
    """Do it. `is_running` knows the turns, by id, that somebody runs or shows. Raises StorageError."""
    await desk.access.load(desk.store)
    now_ms = desk.clock.now_ms()
    late = await desk.store.write(settle_expired, now_ms)
    if late:
        logger.warning("%d turns were settled because they were not heard of", len(late))
    await _end_abandoned(desk, is_running, now_ms)
    await desk.store.write(purge_inbox, now_ms - KEEP_EVENTS_MS)
    await desk.store.write(purge_transcripts, now_ms - retention_days * DAY_MS)
    await desk.store.write(purge_forgotten, now_ms)
    await desk.consent.let_go_of_old(platforms)


async def _end_abandoned(desk: Desk, is_running: Callable[[str], bool], now_ms: int) -> None:
    """End turns whose end could not be written down: they would keep their place busy until a restart."""
    for said in await desk.store.read(open_turns):
        turn_id = said.question.turn_id
        if not is_running(turn_id) and now_ms - said.asked_ms > 1000 * SWEEP_S:
            logger.warning("turn %s was run by nobody any more", turn_id)
            await desk.store.write(end, turn_id, "failed", now_ms)
