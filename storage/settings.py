"""What people have set: a value for a name, in the scope of an account, a place or a conversation.

Which names there are, and what values they take, is the bot's business; here they are JSON.
"""

import json
from collections.abc import Collection, Mapping
from typing import Literal

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from storage.schema import place, setting

Scope = Literal["account", "place", "conversation"]
Value = str | int | float | bool
PERSONA = "persona"
"""Of a place: what its conversations are told that have no persona of their own."""


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


def settings_of_places(connection: Connection, keys: Collection[str]) -> Mapping[tuple[str, str, str], Value]:
    """What was set for whole places under these names: by platform, place and name."""
    rows = connection.execute(
        select(place.c.platform, place.c.external_id, setting.c.key, setting.c.value)
        .join(place, place.c.id == setting.c.scope_id)
        .where(setting.c.scope == "place", setting.c.key.in_(keys))
    )
    return {(platform, name, key): json.loads(value) for platform, name, key, value in rows}


def inherit_settings(connection: Connection, place_id: int, heir_id: int) -> None:
    """What is set for a place is set for another one as well, which is a part of it and new."""
    for key, value in settings_of(connection, "place", place_id).items():
        set_setting(connection, "place", heir_id, key, value)


def move_settings(connection: Connection, place_id: int, heir_id: int) -> None:
    """What is set for a place is set for the one that takes its place, unless something else is set there.

    Nothing stays behind, so that whatever is taken back there later stays so.
    """
    kept = settings_of(connection, "place", heir_id)
    for key, value in settings_of(connection, "place", place_id).items():
        if key not in kept:
            set_setting(connection, "place", heir_id, key, value)
    reset_settings(connection, "place", place_id)
