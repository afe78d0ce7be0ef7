"""Who belongs to a list of users and servers. Pure."""

from collections.abc import Sequence


def is_among(user_id: str, people: Sequence[str]) -> bool:
    """Is somebody named: by id, by server, or with everybody (`*`)?"""
    return any(it in ("*", user_id, server_of(user_id)) for it in people)


def server_of(user_id: str) -> str:
    """The homeserver of a user, or of a room's older ids."""
    return user_id.partition(":")[2]
