"""What there is in the fake: people, guilds, channels, messages. Data with its own questions, no traffic."""

from dataclasses import dataclass, field
from typing import Any

from tests.discord_peer.permissions import (
    ALL,
    IN_DIRECT_MESSAGES,
    Overwrite,
    Permission,
    with_overwrites,
)

Json = dict[str, Any]

TEXT, DIRECT, ANNOUNCEMENT, PUBLIC_THREAD, PRIVATE_THREAD = 0, 1, 5, 11, 12
EPHEMERAL, LOADING, SUPPRESS_EMBEDS = 1 << 6, 1 << 7, 1 << 2
TYPING_S = 10.0


@dataclass(eq=False)
class User:
    """An account."""

    id: int
    name: str
    is_bot: bool = False
    takes_direct_messages: bool = True

    @property
    def mention(self) -> str:
        return f"<@{self.id}>"


@dataclass(eq=False)
class Role:
    id: int
    name: str
    permissions: Permission
    position: int

    @property
    def mention(self) -> str:
        return f"<@&{self.id}>"


@dataclass(eq=False)
class Member:
    """A user in a guild."""

    user: User
    joined_s: float
    roles: list[int] = field(default_factory=list)
    nick: str | None = None


@dataclass(eq=False)
class Guild:
    id: int
    name: str
    owner: User
    roles: dict[int, Role] = field(default_factory=dict)
    members: dict[int, Member] = field(default_factory=dict)
    channels: dict[int, "Channel"] = field(default_factory=dict)
    """Threads too."""

    @property
    def everyone(self) -> Role:
        return self.roles[self.id]

    def permissions_of(self, user: User) -> Permission:
        """Of a member, before channels say otherwise; none for others."""
        if user.id == self.owner.id:
            return ALL
        if user.id not in self.members:
            return Permission.NONE
        allowed = self.everyone.permissions
        for role in self.members[user.id].roles:
            allowed |= self.roles[role].permissions
        return ALL if allowed & Permission.ADMINISTRATOR else allowed


@dataclass(frozen=True)
class Typing:
    user: User
    at_s: float


@dataclass(eq=False)
class Attachment:
    id: int
    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    description: str | None = None


@dataclass(frozen=True)
class Version:
    """What a message showed from `at_s` on."""

    at_s: float
    content: str = ""
    embeds: tuple[Json, ...] = ()
    components: tuple[Json, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    allowed_mentions: Json | None = None
    """As asked for; None if nothing was said, which means: all."""
    flags: int = 0
    pings: tuple[User, ...] = ()
    pings_roles: tuple[int, ...] = ()
    pings_everyone: bool = False


@dataclass(eq=False)
class Message:
    id: int
    channel: "Channel"
    author: User
    versions: list[Version]
    reply_to: "Message | None" = None
    nonce: str | None = None
    private_to: User | None = None
    """The one person who sees it, for an ephemeral answer."""
    origin: Json | None = None
    """The interaction that it answers, as `interaction_metadata` shows it."""
    webhook_id: int | None = None
    reactions: dict[str, list[User]] = field(default_factory=dict)
    thread: "Channel | None" = None
    deleted_s: float | None = None

    @property
    def now(self) -> Version:
        """What it shows."""
        return self.versions[-1]

    @property
    def content(self) -> str:
        return self.now.content

    @property
    def is_deleted(self) -> bool:
        return self.deleted_s is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it only says that the bot is thinking."""
        return bool(self.now.flags & LOADING)

    @property
    def contents(self) -> list[str]:
        """What it has said, from the first version to the present one."""
        return [version.content for version in self.versions]

    @property
    def buttons(self) -> list[Json]:
        """Everything that can be pressed, from left to right, disabled ones too."""
        return [component for component in walked(self.now.components) if component["type"] == 2]


def walked(components: tuple[Json, ...] | list[Json]) -> list[Json]:
    """Components and those inside them, in reading order."""
    found = []
    for component in components:
        found.append(component)
        found += walked(component.get("components", []))
        if "accessory" in component:
            found += walked([component["accessory"]])
    return found


@dataclass(eq=False)
class Channel:
    """A text channel, a thread, or a direct chat with the bot."""

    id: int
    kind: int
    name: str = ""
    guild: Guild | None = None
    parent: "Channel | None" = None
    recipient: User | None = None
    owner: User | None = None
    overwrites: dict[int, Overwrite] = field(default_factory=dict)
    is_archived: bool = False
    is_locked: bool = False
    """Of a thread: only who manages threads writes there."""
    archive_minutes: int = 1440
    thread_members: list[User] = field(default_factory=list)
    all_messages: dict[int, Message] = field(default_factory=dict)
    """By id, deleted and private ones too."""
    typing: list[Typing] = field(default_factory=list)

    @property
    def mention(self) -> str:
        return f"<#{self.id}>"

    @property
    def is_thread(self) -> bool:
        return self.kind in (PUBLIC_THREAD, PRIVATE_THREAD)

    @property
    def messages(self) -> list[Message]:
        """What everybody in the channel sees, the oldest first."""
        shown = [m for m in self.all_messages.values() if not m.is_deleted and m.private_to is None]
        return sorted(shown, key=lambda message: message.id)

    @property
    def threads(self) -> list["Channel"]:
        """Threads below this channel."""
        channels = self.guild.channels.values() if self.guild else ()
        return [channel for channel in channels if channel.parent is self]

    def by(self, author: User) -> list[Message]:
        """What everybody sees of one author, the oldest first."""
        return [message for message in self.messages if message.author is author]

    def is_typing(self, user: User, now_s: float) -> bool:
        """Whether a client shows that `user` types: for 10 s, or until a message of theirs appears."""
        started = max((t.at_s for t in self.typing if t.user is user), default=0.0)
        said = max((m.versions[0].at_s for m in self.by(user)), default=0.0)
        return started > said and now_s - started < TYPING_S

    def permissions_of(self, user: User) -> Permission:
        """What `user` may do here."""
        if self.guild is None:
            return IN_DIRECT_MESSAGES if user.is_bot or user is self.recipient else Permission.NONE
        if self.parent is not None:
            return self.parent.permissions_of(user)
        member = self.guild.members.get(user.id)
        base = self.guild.permissions_of(user)
        if member is None or base == ALL:
            return base
        return with_overwrites(base, self.overwrites, self.guild.id, member.roles, user.id)

    def allow(self, who: User | Role, *permissions: Permission) -> None:
        self._overwrite(who, allow=permissions)

    def deny(self, who: User | Role, *permissions: Permission) -> None:
        self._overwrite(who, deny=permissions)

    def _overwrite(
        self, who: User | Role, allow: tuple[Permission, ...] = (), deny: tuple[Permission, ...] = ()
    ) -> None:
        overwrite = self.overwrites.setdefault(
            who.id, Overwrite(Permission.NONE, Permission.NONE, isinstance(who, Role))
        )
        for permission in allow:
            overwrite.allow |= permission
            overwrite.deny &= ~permission
        for permission in deny:
            overwrite.deny |= permission
            overwrite.allow &= ~permission
