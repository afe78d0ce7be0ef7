"""Accounts, their ledger and the holds of running turns."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    _create_account()
    _create_ledger()
    _create_hold()
    _create_forgotten()


def _create_account() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("balance", sa.Integer, nullable=False, server_default="0"),
        sa.Column("held", sa.Integer, nullable=False, server_default="0"),
        sa.Column("locale", sa.Text),
        sa.Column("banned_until", sa.Integer),
        sa.Column("told_at", sa.Integer),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("platform", "external_id", name="uq_account_platform_external_id"),
        sa.CheckConstraint("held >= 0 AND balance >= held", name=op.f("ck_account_covers_holds")),
        sqlite_autoincrement=True,
    )


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("account_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        sa.Column("turn_id", sa.Text),
        sa.Column("period", sa.Text),
        sa.Column("at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_ledger_account_id"),
        sa.UniqueConstraint("account_id", "kind", "period", name="uq_ledger_account_id_kind_period"),
        sa.UniqueConstraint("turn_id", name="uq_ledger_turn_id"),
    )
    op.create_index("ix_ledger_account_id_at", "ledger", ["account_id", "at"])


def _create_hold() -> None:
    op.create_table(
        "hold",
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        sa.Column("spent", sa.Integer, nullable=False, server_default="0"),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", name="pk_hold"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_hold_account_id"),
        sa.CheckConstraint("amount > 0 AND spent >= 0", name=op.f("ck_hold_amounts")),
    )
    op.create_index("ix_hold_account_id", "hold", ["account_id"])


def _create_forgotten() -> None:
    op.create_table(
        "forgotten",
        sa.Column("account_hash", sa.LargeBinary, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("granted", sa.Integer, nullable=False),
        sa.Column("banned_until", sa.Integer),
        sa.PrimaryKeyConstraint("account_hash", name="pk_forgotten"),
    )
