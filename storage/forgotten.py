"""What is left of people who were forgotten: by a hash, what they have used today, and a ban.

So that forgetting gives nobody a day's grant twice, and takes from nobody what is left of it. When the day is
over this goes as well, unless there is a ban that holds.
"""

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from storage.amounts import period_of
from storage.schema import forgotten


def keep_usage(
    connection: Connection, account_hash: bytes, period: str, used: int, banned_until: int | None
) -> None:
    """Keep it of somebody who is forgotten now, in place of what was kept before."""
    values = {"period": period, "used": used, "banned_until": banned_until}
    connection.execute(
        insert(forgotten)
        .values(account_hash=account_hash, **values)
        .on_conflict_do_update(index_elements=[forgotten.c.account_hash], set_=values)
    )


def usage_before(connection: Connection, account_hash: bytes, period: str) -> int:
    """What somebody had used of a day when they were forgotten on it; 0 if they were not."""
    which = (forgotten.c.account_hash == account_hash) & (forgotten.c.period == period)
    return connection.scalar(select(forgotten.c.used).where(which)) or 0


def purge_forgotten(connection: Connection, now_ms: int) -> int:
    """Delete what is of no use any more; returns of how many people."""
    is_banned = forgotten.c.banned_until.is_not(None) & (forgotten.c.banned_until > now_ms)
    which = (forgotten.c.period < period_of(now_ms)) & ~is_banned
    return connection.execute(delete(forgotten).where(which)).rowcount
