"""What operators ask of a store beside the work: can it be written, and how much is open in it."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from storage.inbox import set_marker
from storage.schema import hold, live_session

PLATFORM, LOOKED_AT = "operator", "looked_at"


@dataclass(frozen=True, slots=True)
class Figures:
    """How much is open."""

    holds: int
    """Turns that money is held for."""
    kept_sessions: int
    """Conversations whose session can be taken up again, or is open now."""


def try_writing(connection: Connection, now_ms: int) -> None:
    """Write something small; a full disk or a file that may not be written is found so."""
    set_marker(connection, PLATFORM, LOOKED_AT, str(now_ms))


def figures(connection: Connection, now_ms: int) -> Figures:
    """How much is open."""
    holds = connection.scalar(select(func.count()).select_from(hold))
    kept = connection.scalar(
        select(func.count()).select_from(live_session).where(live_session.c.lease_until > now_ms)
    )
    return Figures(holds or 0, kept or 0)
