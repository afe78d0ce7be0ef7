"""The tables. Times are integers: milliseconds since 1970, UTC. Amounts are integers: credits.

What concerns money never cascades: an account with open holds cannot vanish under them. What can be deleted
while somebody still has its number (accounts, conversations, events) never gives that number to another.
"""

from sqlalchemy import (
    Boolean,
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
    text,
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
    sqlite_autoincrement=True,
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
    UniqueConstraint("turn_id", "kind"),
    Index(None, "account_id", "at"),
)
"""Append-only. `period` makes a daily grant unique, `turn_id` a charge and what is given back of it."""

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
    Column("used", Integer, nullable=False),
    Column("banned_until", Integer),
)
"""What is left of people who asked to be forgotten: what they have used that day, and a ban."""

place = Table(
    "place",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("is_encrypted", Boolean, nullable=False, server_default="0"),
    Column("told_at", Integer),
    Column("joined_at", Integer, nullable=False),
    Column("used_at", Integer, nullable=False),
    UniqueConstraint("platform", "external_id"),
)
"""A room, channel, thread or direct chat. `is_encrypted` is never unset: what was once private stays so."""

conversation = Table(
    "conversation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("place_id", ForeignKey("place.id"), nullable=False),
    Column("root", Text, nullable=False, server_default=""),
    Column("owner_id", ForeignKey("account.id"), index=True),
    Column("head_id", Text),
    Column("persona", Text),
    Column("current_at", Integer, nullable=False),
    Column("used_at", Integer, nullable=False, index=True),
    Index(None, "place_id", "root"),
    sqlite_autoincrement=True,
)
"""One line of talk. `root` names what others reply to, where a place holds many; "" where it holds one at a
time: then the one that became current last counts. `head_id` is the turn that the next one follows."""

turn = Table(
    "turn",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation_id", ForeignKey("conversation.id"), nullable=False, index=True),
    Column("parent_id", ForeignKey("turn.id"), index=True),
    Column("account_id", ForeignKey("account.id"), nullable=False, index=True),
    Column("event_id", Text),
    Column("origin", LargeBinary, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("prompt_ids", LargeBinary),
    Column("answer", Text, nullable=False, server_default=""),
    Column("answer_ids", LargeBinary),
    Column("state", Text, nullable=False),
    Column("model", Text),
    Column("is_retry", Boolean, nullable=False, server_default="0"),
    Column("num_dropped", Integer, nullable=False, server_default="0"),
    Column("is_anew", Boolean, nullable=False, server_default="0"),
    Column("prefill_tokens", Integer, nullable=False, server_default="0"),
    Column("new_tokens", Integer, nullable=False, server_default="0"),
    Column("asked_at", Integer, nullable=False),
    Column("started_at", Integer),
    Column("ended_at", Integer),
    Column("delivered_at", Integer),
    CheckConstraint(
        "state IN ('queued', 'running', 'done', 'stopped', 'length', 'failed', 'interrupted')", name="states"
    ),
    Index(None, "conversation_id", "event_id"),
)
"""A prompt and the answer to it. Ids are what the session was really told, see token_ids.py: since the answer
before, or, if it was begun anew, from the start. `num_dropped` turns of the path did not fit any more. Only
the bot reads `origin`: who asked, and where. `delivered_at` is set when all of the answer is to be seen.
What `is_retry` follows what it was told to, all else what was said last when it starts."""

joined_message = Table(
    "joined_message",
    metadata,
    Column("turn_id", ForeignKey("turn.id", ondelete="CASCADE"), primary_key=True),
    Column("event_id", Text, primary_key=True, index=True),
)
"""Messages that were added to a question, after the one that `turn.event_id` names."""

delivery = Table(
    "delivery",
    metadata,
    Column("turn_id", ForeignKey("turn.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("place_id", ForeignKey("place.id"), nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("message_id", Text),
    Column("state", Text, nullable=False),
    Column("at", Integer, nullable=False),
    CheckConstraint("state IN ('sending', 'shown', 'gone')", name="states"),
    Index(None, "place_id", "message_id"),
)
"""A message that shows part of an answer. `key` makes sending it again harmless."""

report = Table(
    "report",
    metadata,
    Column("turn_id", ForeignKey("turn.id", ondelete="CASCADE"), primary_key=True),
    Column("account_id", ForeignKey("account.id"), primary_key=True, index=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("at", Integer, nullable=False),
)
"""Answers that somebody wants admins to look at; what they say is with the turn alone, and goes with it."""

live_session = Table(
    "live_session",
    metadata,
    Column("conversation_id", ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("ticket", LargeBinary, nullable=False),
    Column("ids", LargeBinary, nullable=False),
    Column("lease_until", Integer, nullable=False),
)
"""Sessions that the swarm may still hold, and the tickets that attach to them."""

inbox = Table(
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("platform", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("payload", LargeBinary),
    Column("received_at", Integer, nullable=False),
    UniqueConstraint("platform", "event_id"),
    Index("ix_inbox_waiting", "id", sqlite_where=text("payload IS NOT NULL")),
    sqlite_autoincrement=True,
)
"""What came in. The payload goes when it was dealt with; the id stays, so that it is not dealt with again."""

marker = Table(
    "marker",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""How far we have read a platform: sync tokens, the last message of a place."""

setting = Table(
    "setting",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("scope_id", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    CheckConstraint("scope IN ('account', 'place', 'conversation')", name="scopes"),
)
"""What people have set, as JSON. Names of settings and their meaning belong to the bot."""

access_rule = Table(
    "access_rule",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("is_allowed", Boolean, nullable=False),
    Column("at", Integer, nullable=False),
)
"""Whom and what admins have allowed or denied. `name` is an id as the platform writes it, of a person, role,
server, room or channel; for somebody who is forgotten it is a hash, see storage/access.py."""

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
)
"""What admins have done, to whom. No words of people."""
