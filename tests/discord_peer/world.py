"""The state of the fake, and everything that changes it: each change is one method, and tells the gateway."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.discord_peer.clock import Ids, TurnableClock, moment_of_id
from tests.discord_peer.intents import Intent, intent_of_message, intent_of_reaction, intent_of_typing
from tests.discord_peer.interaction import Interaction
from tests.discord_peer.payloads import (
    Listener,
    channel_json,
    member_json,
    message_json,
    thread_member_json,
)
from tests.discord_peer.permissions import EVERYONE, Permission
from tests.discord_peer.things import (
    DIRECT,
    PUBLIC_THREAD,
    TEXT,
    Attachment,
    Channel,
    Guild,
    Json,
    Member,
    Message,
    Role,
    Typing,
    User,
    Version,
)

USER_MENTION = re.compile(r"<@!?(\d{1,20})>")
ROLE_MENTION = re.compile(r"<@&(\d{1,20})>")


@dataclass(frozen=True)
class Event:
    """Something that sessions hear about if they asked for it and may see the channel."""

    name: str
    payload: Callable[[Listener], Json]
    needs: Intent = Intent.NONE
    channel: Channel | None = None


class World:
    """All people, guilds and channels around one bot."""

    def __init__(self, approved: Intent) -> None:
        self.clock = TurnableClock()
        self.ids = Ids(self.clock)
        self.approved = approved
        self.files_url = ""
        self.gateway_url = ""
        self.findings: list[str] = []
        self.users: dict[int, User] = {}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.files: dict[int, Attachment] = {}
        self.commands: dict[int, dict[int, Json]] = {}
        """By guild, 0 for everywhere; then by command id."""
        self.interactions: dict[str, Interaction] = {}
        """By token."""
        self.tell: Callable[[Event], None] = lambda event: None
        self.bot = self.add_user(User(self.ids.next(), "murmur", is_bot=True))
        self.token = f"token-{self.bot.id}"

    def add_user(self, user: User) -> User:
        self.users[user.id] = user
        return user

    def add_guild(self, name: str, owner: User) -> Guild:
        guild = Guild(self.ids.next(), name, owner)
        guild.roles[guild.id] = Role(guild.id, "@everyone", EVERYONE, 0)
        self.guilds[guild.id] = guild
        self.add_member(guild, owner)
        return guild

    def add_role(self, guild: Guild, name: str, permissions: Permission) -> Role:
        role = Role(self.ids.next(), name, permissions, len(guild.roles))
        guild.roles[role.id] = role
        return role

    def add_member(self, guild: Guild, user: User, roles: tuple[Role, ...] = ()) -> Member:
        member = Member(user, self.clock.now_s(), [role.id for role in roles])
        guild.members[user.id] = member
        shown = member_json(member) | {"guild_id": str(guild.id)}
        if self.bot.id in guild.members and user is not self.bot:
            self.tell(Event("GUILD_MEMBER_ADD", lambda _: shown, Intent.GUILD_MEMBERS))
        return member

    def add_channel(self, guild: Guild, name: str) -> Channel:
        channel = Channel(self.ids.next(), TEXT, name, guild)
        self._enter(guild, channel)
        self.tell(Event("CHANNEL_CREATE", lambda _: channel_json(channel), Intent.GUILDS, channel))
        return channel

    def _enter(self, guild: Guild, channel: Channel) -> None:
        guild.channels[channel.id] = channel
        self.channels[channel.id] = channel

    def direct_channel(self, user: User) -> Channel:
        """The one chat of the bot with `user`; made if there is none."""
        for channel in self.channels.values():
            if channel.kind == DIRECT and channel.recipient is user:
                return channel
        channel = Channel(self.ids.next(), DIRECT, recipient=user)
        self.channels[channel.id] = channel
        return channel

    def start_thread(
        self, parent: Channel, owner: User, name: str, start: Message | None = None, kind: int = PUBLIC_THREAD
    ) -> Channel:
        """A thread; one that starts at a message has its id."""
        assert parent.guild is not None
        thread = Channel(
            start.id if start else self.ids.next(), kind, name, parent.guild, parent, owner=owner
        )
        thread.thread_members.append(owner)
        self._enter(parent.guild, thread)
        if start is not None:
            start.thread = thread
        made = channel_json(thread) | {"newly_created": True}
        made |= {"member": thread_member_json(thread, owner)} if owner is self.bot else {}
        self.tell(Event("THREAD_CREATE", lambda _: made, Intent.GUILDS, thread))
        if start is not None:
            self._tell_message("MESSAGE_UPDATE", start)
        return thread

    def update_channel(self, channel: Channel) -> None:
        """Tell about what changed in a channel's own data."""
        name = "THREAD_UPDATE" if channel.is_thread else "CHANNEL_UPDATE"
        self.tell(Event(name, lambda _: channel_json(channel), Intent.GUILDS, channel))

    def delete_channel(self, channel: Channel) -> None:
        name = "THREAD_DELETE" if channel.is_thread else "CHANNEL_DELETE"
        shown = channel_json(channel)
        self.tell(Event(name, lambda _: shown, Intent.GUILDS, channel))
        for gone in (channel, *channel.threads):  # of its threads nobody is told
            self.channels.pop(gone.id, None)
            if gone.guild is not None:
                gone.guild.channels.pop(gone.id, None)

    def post(self, message: Message) -> Message:
        """Show a message, built by the caller. Its version gets the pings that its words make."""
        message.versions[-1] = self._with_pings(message, message.now)
        message.channel.all_messages[message.id] = message
        self.files |= {attachment.id: attachment for attachment in message.now.attachments}
        was_archived, message.channel.is_archived = message.channel.is_archived, False
        self._tell_message("MESSAGE_CREATE", message)
        if was_archived:  # which of both events comes first is not promised
            self.update_channel(message.channel)
        return message

    def edit(self, message: Message, version: Version) -> None:
        """Show something else in a message's place."""
        message.versions.append(
            self._with_pings(
                message, replace(version, at_s=max(self.clock.now_s(), message.versions[0].at_s))
            )
        )
        self.files |= {attachment.id: attachment for attachment in version.attachments}
        self._tell_message("MESSAGE_UPDATE", message)

    def delete(self, message: Message) -> None:
        message.deleted_s = self.clock.now_s()
        gone: Json = {"id": str(message.id), "channel_id": str(message.channel.id)}
        self._tell_in("MESSAGE_DELETE", gone, message.channel, intent_of_message, message.private_to)

    def delete_many(self, channel: Channel, messages: Sequence[Message]) -> None:
        """Delete messages of one channel at once, as moderation does; the bot hears of it in one event."""
        for message in messages:
            message.deleted_s = self.clock.now_s()
        gone: Json = {"ids": [str(message.id) for message in messages], "channel_id": str(channel.id)}
        self._tell_in("MESSAGE_DELETE_BULK", gone, channel, intent_of_message)

    def react(self, message: Message, user: User, emoji: str) -> None:
        """Add a reaction; a second one of the same user with the same emoji is nothing."""
        users = message.reactions.setdefault(emoji, [])
        if user not in users:
            users.append(user)
            self._tell_in(
                "MESSAGE_REACTION_ADD",
                _reaction_event(message, user, emoji),
                message.channel,
                intent_of_reaction,
            )

    def unreact(self, message: Message, user: User, emoji: str) -> None:
        users = message.reactions.get(emoji, [])
        if user in users:
            users.remove(user)
            if not users:
                del message.reactions[emoji]
            self._tell_in(
                "MESSAGE_REACTION_REMOVE",
                _reaction_event(message, user, emoji),
                message.channel,
                intent_of_reaction,
            )

    def type_in(self, channel: Channel, user: User) -> None:
        channel.typing.append(Typing(user, self.clock.now_s()))
        shown: Json = {
            "channel_id": str(channel.id),
            "user_id": str(user.id),
            "timestamp": int(self.clock.now_s()),
        }
        self._tell_in("TYPING_START", shown, channel, intent_of_typing)

    def _over_rest(self) -> Listener:
        """What the bot may read when it asks: there the approval counts, not a session's intents."""
        return Listener(self.bot, self.approved)

    def shown(self, message: Message) -> Json:
        """A message in an answer to the bot."""
        return message_json(message, self.files_url, self._over_rest())

    def _tell_message(self, name: str, message: Message) -> None:
        channel = message.channel
        # Private answers are told to nobody else; the bot learns of them from the answer to its request.
        if message.private_to is not None:
            return

        def payload(listener: Listener) -> Json:
            return message_json(message, self.files_url, listener) | _of_guild(channel, message.author)

        self.tell(Event(name, payload, intent_of_message(channel.guild is not None), channel))

    def _tell_in(
        self,
        name: str,
        payload: Json,
        channel: Channel,
        intent: Callable[[bool], Intent],
        private_to: User | None = None,
    ) -> None:
        if private_to is None:
            guild = {} if channel.guild is None else {"guild_id": str(channel.guild.id)}
            self.tell(Event(name, lambda _: payload | guild, intent(channel.guild is not None), channel))

    def _with_pings(self, message: Message, version: Version) -> Version:
        """Whom a version mentions: named in its words, allowed by whoever sent it, and there to be named."""
        asked = version.allowed_mentions
        allowed: Json = {"parse": ["users", "roles", "everyone"], "replied_user": True}
        if asked is not None:
            allowed = asked
        users = _named(USER_MENTION, version.content, allowed, "users")
        if message.reply_to is not None and allowed.get("replied_user", False):
            users.add(message.reply_to.author.id)
        everyone = "@everyone" in version.content or "@here" in version.content
        may_all = bool(
            message.channel.permissions_of(message.author) & Permission.MENTION_EVERYONE
            and message.channel.guild is not None
        )
        return replace(
            version,
            pings=tuple(self.users[user] for user in sorted(users) if user in self.users),
            pings_roles=tuple(sorted(_named(ROLE_MENTION, version.content, allowed, "roles"))),
            pings_everyone=everyone and may_all and "everyone" in allowed.get("parse", []),
        )

    def age_s(self, message: Message) -> float:
        """Seconds since a message was made."""
        return self.clock.now_s() - moment_of_id(message.id)


def _named(pattern: re.Pattern[str], content: str, allowed: Json, kind: str) -> set[int]:
    named = {int(digits) for digits in pattern.findall(content)}
    if kind in allowed.get("parse", []):
        return named
    return named & {int(one) for one in allowed.get(kind) or []}


def _of_guild(channel: Channel, author: User) -> Json:
    if channel.guild is None:
        return {"channel_type": channel.kind}
    shown: Json = {"guild_id": str(channel.guild.id), "channel_type": channel.kind}
    member = channel.guild.members.get(author.id)
    if member is None:
        return shown
    return shown | {"member": {key: value for key, value in member_json(member).items() if key != "user"}}


def _reaction_event(message: Message, user: User, emoji: str) -> Json:
    shown: Json = {
        "user_id": str(user.id),
        "channel_id": str(message.channel.id),
        "message_id": str(message.id),
        "message_author_id": str(message.author.id),
        "emoji": {"id": None, "name": emoji},
        "burst": False,
        "type": 0,
    }
    member = message.channel.guild.members.get(user.id) if message.channel.guild else None
    return shown if member is None else shown | {"member": member_json(member)}
