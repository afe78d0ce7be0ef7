"""Things as Discord's API writes them."""

from tests.discord_peer.clock import moment_of_id, timestamp
from tests.discord_peer.intents import Intent
from tests.discord_peer.permissions import Permission
from tests.discord_peer.things import (
    DIRECT,
    Attachment,
    Channel,
    Guild,
    Json,
    Member,
    Message,
    Role,
    User,
)


class Listener:
    """The bot as one session made it, or over REST: there the approved intents count."""

    def __init__(self, bot: User, intents: Intent) -> None:
        self.bot = bot
        self.intents = intents

    def can_read(self, message: Message) -> bool:
        """Whether a message's words reach the bot: with the intent all do, without it its own, those that
        mention it, and those of direct chats."""
        is_ours = message.author is self.bot or self.bot in message.now.pings
        has_intent = bool(self.intents & Intent.MESSAGE_CONTENT)
        return has_intent or is_ours or message.channel.guild is None


CONTENT_FIELDS: tuple[tuple[str, object], ...] = (
    ("content", ""),
    ("embeds", []),
    ("attachments", []),
    ("components", []),
)


def user_json(user: User) -> Json:
    return {
        "id": str(user.id),
        "username": user.name,
        "discriminator": "0000" if user.is_bot else "0",
        "global_name": None if user.is_bot else user.name.title(),
        "avatar": None,
        "bot": user.is_bot,
        "public_flags": 0,
        "flags": 0,
        "primary_guild": None,
    }


def own_account_json(bot: User) -> Json:
    return user_json(bot) | {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None}


def member_json(member: Member) -> Json:
    return {
        "avatar": None,
        "banner": None,
        "communication_disabled_until": None,
        "flags": 0,
        "joined_at": timestamp(member.joined_s),
        "nick": member.nick,
        "pending": False,
        "premium_since": None,
        "roles": [str(role) for role in member.roles],
        "mute": False,
        "deaf": False,
        "user": user_json(member.user),
    }


def role_json(role: Role) -> Json:
    return {
        "id": str(role.id),
        "name": role.name,
        "permissions": str(int(role.permissions)),
        "position": role.position,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": True,
        "icon": None,
        "unicode_emoji": None,
        "flags": 0,
    }


def channel_json(channel: Channel) -> Json:
    last = max((message.id for message in channel.messages), default=None)
    shown: Json = {
        "id": str(channel.id),
        "type": channel.kind,
        "flags": 0,
        "last_message_id": str(last) if last else None,
    }
    if channel.kind == DIRECT:
        return shown | {"recipients": [user_json(channel.recipient)] if channel.recipient else []}
    assert channel.guild is not None
    shown |= {"guild_id": str(channel.guild.id), "name": channel.name}
    return shown | (_thread_part(channel) if channel.is_thread else _text_part(channel))


def _text_part(channel: Channel) -> Json:
    return {
        "position": 0,
        "parent_id": None,
        "topic": None,
        "nsfw": False,
        "rate_limit_per_user": 0,
        "permission_overwrites": [
            {
                "id": str(who),
                "type": 0 if overwrite.is_role else 1,
                "allow": str(int(overwrite.allow)),
                "deny": str(int(overwrite.deny)),
            }
            for who, overwrite in channel.overwrites.items()
        ],
    }


def _thread_part(thread: Channel) -> Json:
    assert thread.parent is not None
    assert thread.owner is not None
    made = timestamp(moment_of_id(thread.id))
    return {
        "parent_id": str(thread.parent.id),
        "owner_id": str(thread.owner.id),
        "message_count": len(thread.messages),
        "total_message_sent": len(thread.all_messages),
        "member_count": len(thread.thread_members),
        "rate_limit_per_user": 0,
        "thread_metadata": {
            "archived": thread.is_archived,
            "archive_timestamp": made,
            "auto_archive_duration": thread.archive_minutes,
            "locked": thread.is_locked,
            "create_timestamp": made,
        },
    }


def thread_member_json(thread: Channel, user: User) -> Json:
    return {
        "id": str(thread.id),
        "user_id": str(user.id),
        "join_timestamp": timestamp(moment_of_id(thread.id)),
        "flags": 0,
    }


def guild_json(guild: Guild) -> Json:
    nothing = (
        "icon description home_header splash discovery_splash banner application_id afk_channel_id "
        "system_channel_id widget_channel_id vanity_url_code rules_channel_id safety_alerts_channel_id "
        "public_updates_channel_id incidents_data max_presences"
    )
    zeros = (
        "system_channel_flags verification_level default_message_notifications mfa_level "
        "explicit_content_filter premium_tier premium_subscription_count nsfw_level"
    )
    return {
        **dict.fromkeys(nothing.split(), None),
        **dict.fromkeys(zeros.split(), 0),
        "id": str(guild.id),
        "name": guild.name,
        "owner_id": str(guild.owner.id),
        "features": [],
        "region": "us-east",
        "afk_timeout": 300,
        "widget_enabled": False,
        "roles": [role_json(role) for role in guild.roles.values()],
        "max_members": 500_000,
        "max_stage_video_channel_users": 50,
        "max_video_channel_users": 25,
        "preferred_locale": "en-US",
        "premium_progress_bar_enabled": False,
        "nsfw": False,
        "emojis": [],
        "stickers": [],
    }


def guild_create_json(guild: Guild, listener: Listener) -> Json:
    """What a bot learns when a guild becomes available: the channels that it sees, and of the members only
    itself unless it watches presences."""
    bot = listener.bot
    shown = guild.members.values() if listener.intents & Intent.GUILD_PRESENCES else [guild.members[bot.id]]
    seen = [c for c in guild.channels.values() if c.permissions_of(bot) & Permission.VIEW_CHANNEL]
    return guild_json(guild) | {
        "joined_at": timestamp(guild.members[bot.id].joined_s),
        "large": False,
        "unavailable": False,
        "member_count": len(guild.members),
        "members": [member_json(member) for member in shown],
        "channels": [channel_json(channel) for channel in seen if not channel.is_thread],
        "threads": [channel_json(c) for c in seen if c.is_thread and not c.is_archived],
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
    }


def attachment_json(attachment: Attachment, files_url: str) -> Json:
    url = f"{files_url}/{attachment.id}/{attachment.filename}"
    shown: Json = {
        "id": str(attachment.id),
        "filename": attachment.filename,
        "size": len(attachment.content),
        "url": url,
        "proxy_url": url,
        "content_type": attachment.content_type,
    }
    return shown if attachment.description is None else shown | {"description": attachment.description}


def message_json(message: Message, files_url: str, listener: Listener, deep: bool = True) -> Json:
    """A message; its words are left out where the listener may not have them."""
    now = message.now
    shown: Json = {
        "id": str(message.id),
        "type": _kind(message),
        "channel_id": str(message.channel.id),
        "author": user_json(message.author),
        "content": now.content,
        "mentions": [user_json(user) for user in now.pings],
        "mention_roles": [str(role) for role in now.pings_roles],
        "mention_everyone": now.pings_everyone,
        "attachments": [attachment_json(attachment, files_url) for attachment in now.attachments],
        "embeds": list(now.embeds),
        "components": list(now.components),
        "timestamp": timestamp(message.versions[0].at_s),
        "edited_timestamp": timestamp(now.at_s) if len(message.versions) > 1 else None,
        "flags": now.flags,
        "pinned": False,
        "tts": False,
    }
    shown |= _optional_parts(message)
    if message.reply_to is not None:
        shown["message_reference"] = _reference_json(message.reply_to)
        if deep:
            gone = message.reply_to.is_deleted
            shown["referenced_message"] = (
                None if gone else message_json(message.reply_to, files_url, listener, deep=False)
            )
    if not listener.can_read(message):
        shown |= dict(CONTENT_FIELDS)
    return shown


def _kind(message: Message) -> int:
    if message.reply_to is not None:
        return 19
    return 20 if message.origin is not None and message.origin["type"] == 2 else 0


def _optional_parts(message: Message) -> Json:
    shown: Json = {}
    if message.nonce is not None:
        shown["nonce"] = message.nonce
    if message.webhook_id is not None:
        shown |= {"webhook_id": str(message.webhook_id), "application_id": str(message.webhook_id)}
    if message.origin is not None:
        shown["interaction_metadata"] = message.origin
    if message.thread is not None:
        shown["thread"] = channel_json(message.thread)
    if message.reactions:
        shown["reactions"] = [_reaction_json(emoji, users) for emoji, users in message.reactions.items()]
    return shown


def _reference_json(message: Message) -> Json:
    shown: Json = {"type": 0, "message_id": str(message.id), "channel_id": str(message.channel.id)}
    return shown if message.channel.guild is None else shown | {"guild_id": str(message.channel.guild.id)}


def _reaction_json(emoji: str, users: list[User]) -> Json:
    return {
        "emoji": {"id": None, "name": emoji},
        "count": len(users),
        "count_details": {"burst": 0, "normal": len(users)},
        "burst_colors": [],
        "me_burst": False,
        "me": any(user.is_bot for user in users),
    }
