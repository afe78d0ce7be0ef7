"""Places, conversations, turns and what shows them; the inbox, markers, settings; what admins have said."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of the chat side."""
    _create_place()
    _create_conversation()
    _create_turn()
    _create_joined_message()
    _create_delivery()
    _create_live_session()
    _create_inbox()
    _create_marker()
    _create_setting()
    _create_access_rule()
    _create_audit()


def _create_place() -> None:
    op.create_table(
        "place",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("is_encrypted", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("told_at", sa.Integer),
        sa.Column("joined_at", sa.Integer, nullable=False),
        sa.Column("used_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_place"),
        sa.UniqueConstraint("platform", "external_id", name="uq_place_platform_external_id"),
    )


def _create_conversation() -> None:
    op.create_table(
        "conversation",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("place_id", sa.Integer, nullable=False),
        sa.Column("root", sa.Text, nullable=False, server_default=""),
        sa.Column("owner_id", sa.Integer),
        sa.Column("head_id", sa.Text),
        sa.Column("persona", sa.Text),
        sa.Column("current_at", sa.Integer, nullable=False),
        sa.Column("used_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversation"),
        sa.ForeignKeyConstraint(["place_id"], ["place.id"], name="fk_conversation_place_id"),
        sa.ForeignKeyConstraint(["owner_id"], ["account.id"], name="fk_conversation_owner_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_conversation_place_id_root", "conversation", ["place_id", "root"])
    op.create_index("ix_conversation_owner_id", "conversation", ["owner_id"])
    op.create_index("ix_conversation_used_at", "conversation", ["used_at"])


def _create_turn() -> None:
    op.create_table(
        "turn",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Integer, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("account_id", sa.Integer, nullable=False),
        sa.Column("event_id", sa.Text),
        sa.Column("origin", sa.LargeBinary, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("prompt_ids", sa.LargeBinary),
        sa.Column("answer", sa.Text, nullable=False, server_default=""),
        sa.Column("answer_ids", sa.LargeBinary),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("is_retry", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("num_dropped", sa.Integer, nullable=False, server_default="0"),
        sa.Column("is_anew", sa.Boolean, nullable=False, server_default="0"),
        sa.Column("prefill_tokens", sa.Integer, nullable=False, server_default="0"),
        sa.Column("new_tokens", sa.Integer, nullable=False, server_default="0"),
        sa.Column("asked_at", sa.Integer, nullable=False),
        sa.Column("started_at", sa.Integer),
        sa.Column("ended_at", sa.Integer),
        sa.Column("delivered_at", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_turn"),
        sa.ForeignKeyConstraint(["conversation_id"], ["conversation.id"], name="fk_turn_conversation_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["turn.id"], name="fk_turn_parent_id"),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_turn_account_id"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'done', 'stopped', 'length', 'failed', 'interrupted')",
            name=op.f("ck_turn_states"),
        ),
    )
    op.create_index("ix_turn_conversation_id", "turn", ["conversation_id"])
    op.create_index("ix_turn_parent_id", "turn", ["parent_id"])
    op.create_index("ix_turn_account_id", "turn", ["account_id"])
    op.create_index("ix_turn_conversation_id_event_id", "turn", ["conversation_id", "event_id"])


def _create_joined_message() -> None:
    op.create_table(
        "joined_message",
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", "event_id", name="pk_joined_message"),
        sa.ForeignKeyConstraint(
            ["turn_id"], ["turn.id"], name="fk_joined_message_turn_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_joined_message_event_id", "joined_message", ["event_id"])


def _create_delivery() -> None:
    op.create_table(
        "delivery",
        sa.Column("turn_id", sa.Text, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("place_id", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("turn_id", "part", name="pk_delivery"),
        sa.ForeignKeyConstraint(["turn_id"], ["turn.id"], name="fk_delivery_turn_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["place_id"], ["place.id"], name="fk_delivery_place_id"),
        sa.UniqueConstraint("key", name="uq_delivery_key"),
        sa.CheckConstraint("state IN ('sending', 'shown', 'gone')", name=op.f("ck_delivery_states")),
    )
    op.create_index("ix_delivery_place_id_message_id", "delivery", ["place_id", "message_id"])


def _create_live_session() -> None:
    op.create_table(
        "live_session",
        sa.Column("conversation_id", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("ticket", sa.LargeBinary, nullable=False),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        sa.Column("lease_until", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_live_session"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversation.id"],
            name="fk_live_session_conversation_id",
            ondelete="CASCADE",
        ),
    )


def _create_inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("received_at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inbox"),
        sa.UniqueConstraint("platform", "event_id", name="uq_inbox_platform_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_inbox_waiting", "inbox", ["id"], sqlite_where=sa.text("payload IS NOT NULL"))


def _create_marker() -> None:
    op.create_table(
        "marker",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("platform", "name", name="pk_marker"),
    )


def _create_setting() -> None:
    op.create_table(
        "setting",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("scope_id", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("scope", "scope_id", "key", name="pk_setting"),
        sa.CheckConstraint("scope IN ('account', 'place', 'conversation')", name=op.f("ck_setting_scopes")),
    )


def _create_access_rule() -> None:
    op.create_table(
        "access_rule",
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("is_allowed", sa.Boolean, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("platform", "name", name="pk_access_rule"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False, server_default=""),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
