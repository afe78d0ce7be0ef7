"""A turn may get back what it was charged; of the forgotten is kept what they used, not what they got."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Let a turn have one entry of each kind. Whoever was forgotten today counts as having used the grant."""
    with op.batch_alter_table("ledger") as ledger:
        ledger.drop_constraint("uq_ledger_turn_id", type_="unique")
        ledger.create_unique_constraint("uq_ledger_turn_id_kind", ["turn_id", "kind"])
    with op.batch_alter_table("forgotten") as forgotten:
        forgotten.alter_column(
            "granted", new_column_name="used", existing_type=sa.Integer, existing_nullable=False
        )
