"""The tables. Times are integers: milliseconds since 1970, UTC. Amounts are integers: credits.

What concerns money never cascades: an account with open holds cannot vanish under them.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

account = Table(
    "account",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("balance", Integer, nullable=False, server_default="0"),
    Column("held", Integer, nullable=False, server_default="0"),
    Column("locale", Text),
    Column("banned_until", Integer),
    Column("told_at", Integer),
    Column("created_at", Integer, nullable=False),
    UniqueConstraint("platform", "external_id"),
    CheckConstraint("held >= 0 AND balance >= held", name="covers_holds"),
)
"""`balance` is the sum of the account's ledger, `held` that of its holds."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("turn_id", Text),
    Column("period", Text),
    Column("at", Integer, nullable=False),
    UniqueConstraint("account_id", "kind", "period"),
    UniqueConstraint("turn_id"),
    Index(None, "account_id", "at"),
)
"""Append-only. `period` makes a daily grant unique, `turn_id` a charge."""

hold = Table(
    "hold",
    metadata,
    Column("turn_id", Text, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("amount", Integer, nullable=False),
    Column("spent", Integer, nullable=False, server_default="0"),
    Column("boot", Text, nullable=False),
    Column("expires_at", Integer, nullable=False),
    CheckConstraint("amount > 0 AND spent >= 0", name="amounts"),
)
"""What running turns may cost at most, and had cost at their last heartbeat. Only open holds are here."""

forgotten = Table(
    "forgotten",
    metadata,
    Column("account_hash", LargeBinary, primary_key=True),
    Column("period", Text, nullable=False),
    Column("granted", Integer, nullable=False),
    Column("banned_until", Integer),
)
"""What is left of people who asked to be forgotten: that today's grant was given, and a ban."""
