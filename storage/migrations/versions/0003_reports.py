"""Answers that people have reported."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table of reports."""
    op.create_table(
        "report",
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", "account_id", name="pk_report"),
        sa.ForeignKeyConstraint(["turn_id"], ["turn.id"], name="fk_report_turn_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_report_account_id"),
    )
    op.create_index("ix_report_account_id", "report", ["account_id"])
