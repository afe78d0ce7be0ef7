"""What is done once a minute: settle holds that were not heard of, and forget what is old."""

import logging
from collections.abc import Iterable

from bot.receiving.reception import Desk
from storage.amounts import DAY_MS
from storage.inbox import purge_inbox
from storage.ledger import settle_expired
from storage.privacy import purge_transcripts

logger = logging.getLogger(__name__)

SWEEP_S = 60.0
KEEP_EVENTS_MS = 7 * DAY_MS


async def sweep(desk: Desk, platforms: Iterable[str], retention_days: int) -> None:
    """Do it. Raises StorageError."""
    await desk.access.load(desk.store)
    now_ms = desk.clock.now_ms()
    late = await desk.store.write(settle_expired, now_ms)
    if late:
        logger.warning("%d turns were settled because they were not heard of", len(late))
    await desk.store.write(purge_inbox, now_ms - KEEP_EVENTS_MS)
    await desk.store.write(purge_transcripts, now_ms - retention_days * DAY_MS)
    await desk.consent.let_go_of_old(platforms)
