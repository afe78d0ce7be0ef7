"""Permission bits, and what a member may do in a channel."""

from collections.abc import Iterable
from enum import IntFlag


class Permission(IntFlag):
    """The bits that the fake looks at, and those that a real member has besides."""

    NONE = 0
    ADMINISTRATOR = 1 << 3
    MANAGE_CHANNELS = 1 << 4
    MANAGE_GUILD = 1 << 5
    ADD_REACTIONS = 1 << 6
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    MENTION_EVERYONE = 1 << 17
    MANAGE_ROLES = 1 << 28
    USE_APPLICATION_COMMANDS = 1 << 31
    MANAGE_THREADS = 1 << 34
    CREATE_PUBLIC_THREADS = 1 << 35
    CREATE_PRIVATE_THREADS = 1 << 36
    SEND_MESSAGES_IN_THREADS = 1 << 38
    MODERATE_MEMBERS = 1 << 40


ALL = Permission((1 << 41) - 1)
EVERYONE = (
    Permission.ADD_REACTIONS
    | Permission.VIEW_CHANNEL
    | Permission.SEND_MESSAGES
    | Permission.EMBED_LINKS
    | Permission.ATTACH_FILES
    | Permission.READ_MESSAGE_HISTORY
    | Permission.USE_APPLICATION_COMMANDS
    | Permission.CREATE_PUBLIC_THREADS
    | Permission.SEND_MESSAGES_IN_THREADS
)
IN_DIRECT_MESSAGES = EVERYONE & ~Permission.CREATE_PUBLIC_THREADS


class Overwrite:
    """What a channel allows and denies one role or one member."""

    def __init__(self, allow: Permission, deny: Permission, is_role: bool) -> None:
        self.allow = allow
        self.deny = deny
        self.is_role = is_role


def with_overwrites(
    base: Permission, overwrites: dict[int, Overwrite], everyone: int, roles: Iterable[int], member: int
) -> Permission:
    """Apply a channel's overwrites in Discord's order: @everyone, then all roles at once, then the member."""
    if base & Permission.ADMINISTRATOR:
        return ALL
    allowed = base
    if everyone in overwrites:
        allowed = allowed & ~overwrites[everyone].deny | overwrites[everyone].allow
    for_roles = [overwrites[role] for role in roles if role in overwrites and role != everyone]
    for overwrite in for_roles:
        allowed &= ~overwrite.deny
    for overwrite in for_roles:
        allowed |= overwrite.allow
    if member in overwrites:
        allowed = allowed & ~overwrites[member].deny | overwrites[member].allow
    return allowed if allowed & Permission.VIEW_CHANNEL else Permission.NONE
