"""Turns that their process did not end: left behind when it stops, taken up when the next one starts.

What has shown nothing is answered from its start. Of the rest people are told that it was cut off.
"""

from collections.abc import Callable

from storage.database import Database, Transaction
from storage.ledger import settle, settle_dead
from storage.transcript import Said, end, get_turn, open_turns, requeue


async def take_stock(
    store: Database, boot: str, now_ms: int, is_wanted: Callable[[Said], bool]
) -> list[Said]:
    """Settle what other boots than this one have left; returns the turns that wait for their answer again.

    The others end: something of them is to be seen, or `is_wanted` knows that nobody waits for it any more.
    """
    await store.write(settle_dead, boot, now_ms)
    waiting = []
    for said in await store.read(open_turns):
        turn_id = said.question.turn_id
        waits = said.state == "queued" or await store.write(requeue, turn_id)
        if not waits or not is_wanted(said):
            await store.write(end, turn_id, "interrupted", now_ms)
        elif (again := await store.read(get_turn, turn_id)) is not None:
            waiting.append(again)
    return waiting


def leave(connection: Transaction, turn_id: str, now_ms: int) -> None:
    """A turn that has shown nothing costs nothing, and waits for the next start."""
    settle(connection, turn_id, 0, now_ms)
    requeue(connection, turn_id)


def fail(connection: Transaction, turn_id: str, now_ms: int) -> None:
    """End a turn that nothing can be done for."""
    settle(connection, turn_id, 0, now_ms)
    end(connection, turn_id, "failed", now_ms)
