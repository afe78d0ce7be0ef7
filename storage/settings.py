"""What people have set: a value for a name, in the scope of an account, a place or a conversation.

Which names there are, and what values they take, is the bot's business; here they are JSON.
"""

import json
from collections.abc import Mapping
from typing import Literal

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from storage.schema import setting

Scope = Literal["account", "place", "conversation"]
Value = str | int | float | bool


def set_setting(connection: Connection, scope: Scope, scope_id: int, key: str, value: Value) -> None:
    """Set a value, in place of the one before."""
    text = json.dumps(value)
    connection.execute(
        insert(setting)
        .values(scope=scope, scope_id=scope_id, key=key, value=text)
        .on_conflict_do_update(
            index_elements=[setting.c.scope, setting.c.scope_id, setting.c.key], set_={"value": text}
        )
    )


def reset_settings(connection: Connection, scope: Scope, scope_id: int, key: str | None = None) -> int:
    """Take back what was set in a scope, or one value of it; returns how many there were."""
    which = (setting.c.scope == scope) & (setting.c.scope_id == scope_id)
    return connection.execute(
        delete(setting).where(which if key is None else which & (setting.c.key == key))
    ).rowcount


def settings_of(connection: Connection, scope: Scope, scope_id: int) -> Mapping[str, Value]:
    """All that was set in a scope."""
    rows = connection.execute(
        select(setting.c.key, setting.c.value)
        .where(setting.c.scope == scope, setting.c.scope_id == scope_id)
        .order_by(setting.c.key)
    )
    return {key: json.loads(value) for key, value in rows}
