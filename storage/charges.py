"""What single answers have cost their asker. Part of a transaction."""

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from storage.schema import ledger, turn


@dataclass(frozen=True, slots=True)
class Charge:
    """What an answer has cost, in credits, and when it was paid for."""

    amount: int
    at_ms: int


def last_charges(connection: Connection, account_id: int, most: int) -> list[Charge]:
    """The newest answers that somebody has paid for, the newest first.

    What was given back for an answer is not paid. An answer that was deleted is not among them: that it was
    paid for stays in the ledger, but nobody is to be reminded of it.
    """
    amount, at_ms = -func.sum(ledger.c.amount), func.min(ledger.c.at)
    rows = connection.execute(
        select(amount, at_ms)
        .join(turn, turn.c.id == ledger.c.turn_id)
        .where(ledger.c.account_id == account_id)
        .group_by(ledger.c.turn_id)
        .having(amount > 0)
        .order_by(at_ms.desc(), func.max(ledger.c.id).desc())
        .limit(most)
    )
    return [Charge(*row) for row in rows]
