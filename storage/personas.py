"""Instructions that conversations follow, and those that none follows any more. Part of a transaction."""

from collections.abc import Collection

from sqlalchemy import Connection, exists, select

from storage.schema import conversation


def personas_of(connection: Connection, conversations: Collection[int]) -> set[str]:
    """What these conversations are told."""
    told = select(conversation.c.persona).where(
        conversation.c.id.in_(conversations), conversation.c.persona.is_not(None)
    )
    return {persona for persona in connection.scalars(told) if persona}


def unused_personas(connection: Connection, personas: Collection[str]) -> set[str]:
    """Those of `personas` under which nobody goes on.

    What one place has left behind for another conversation does not count: its turns are kept, but nothing is
    said in it. Who forks it has its instructions told anew.
    """
    newer = conversation.alias()
    is_newer = (newer.c.current_at > conversation.c.current_at) | (
        (newer.c.current_at == conversation.c.current_at) & (newer.c.id > conversation.c.id)
    )
    is_left = exists().where(newer.c.place_id == conversation.c.place_id, newer.c.root == "", is_newer)
    goes_on = (conversation.c.root != "") | ~is_left
    followed = select(conversation.c.persona).where(conversation.c.persona.in_(personas), goes_on)
    return set(personas) - set(connection.scalars(followed))
