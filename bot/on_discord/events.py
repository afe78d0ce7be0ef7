"""What happens on Discord as the core hears it: what is for us, from whom, where, and what it says."""

import re

import discord
import msgspec

from bot.config.platforms import DiscordSettings
from bot.on_discord.attachments import attached_to
from bot.on_discord.places import moment_ms
from bot.receiving.access import Access
from bot.words import MAX_TEXT_LETTERS, Author, Inbound, PlaceKind, Where
from storage.inbox import Event

PLATFORM = "discord"
MAX_NAME_LETTERS = 100
SPOKEN = (discord.MessageType.default, discord.MessageType.reply)

Person = discord.User | discord.Member | discord.ClientUser


def where_of(channel: object, channel_id: int) -> Where:
    """The place that a channel is."""
    kind: PlaceKind = "group"
    if isinstance(channel, discord.DMChannel):
        kind = "direct"
    elif isinstance(channel, discord.Thread):
        kind = "thread"
    return Where(PLATFORM, str(channel_id), kind)


def author_of(person: Person, permissions: discord.Permissions | None) -> Author:
    """A person, with what they may do at a place: who may delete others' messages moderates it."""
    is_moderator = permissions is not None and permissions.manage_messages
    return Author(str(person.id), person.display_name[:MAX_NAME_LETTERS], is_moderator)


def is_spoken(message: discord.Message) -> bool:
    """A person wrote it: no bot, no webhook, and nothing that Discord says by itself."""
    return message.type in SPOKEN and message.webhook_id is None and not message.author.bot


def is_addressed(message: discord.Message, me: discord.ClientUser) -> bool:
    """It was written to us: in a chat of two, with our name, below a message of ours, or in a thread of ours.

    A mention of everybody does not name us.
    """
    channel = message.channel
    if isinstance(channel, discord.DMChannel):
        return True
    if isinstance(channel, discord.Thread) and channel.owner_id == me.id:
        return True
    return me.id in message.raw_mentions or _is_reply_to(message, me)


def inbound_of(message: discord.Message, me: discord.ClientUser) -> Inbound | None:
    """A message that is for us, without our name in it; None if nothing is left to be said."""
    text = re.sub(rf"<@!?{me.id}>", "", message.content).strip()[:MAX_TEXT_LETTERS]
    files = attached_to(message)
    if not text and not files:
        return None
    where = where_of(message.channel, message.channel.id)
    reference = message.reference
    is_reply = message.type is discord.MessageType.reply and reference is not None
    return Inbound(
        str(message.id),
        where,
        author_of(message.author, _permissions(message)),
        text,
        round(message.created_at.timestamp() * 1000),
        str(reference.message_id) if is_reply and reference is not None else "",
        files=files,
    )


def deletion_of(channel_id: int, message_id: int) -> Inbound:
    """A message was deleted; Discord does not say by whom."""
    where = Where(PLATFORM, str(channel_id), "group")
    sent_ms = moment_ms(message_id)
    return Inbound(f"deleted-{message_id}", where, Author("", ""), "", sent_ms, deleted=str(message_id))


def event_of(inbound: Inbound) -> Event:
    """An event as the inbox keeps it."""
    return Event(inbound.event_id, inbound.author.external_id, msgspec.json.encode(inbound))


def may_use(
    settings: DiscordSettings,
    access: Access,
    person: Person,
    channel: object,
    channel_id: int,
    command: str = "",
) -> bool:
    """Whether the operator and admins let this person use the bot here. What is denied is denied.

    Of an admin's own `command` admins cannot deny anything; see `Access.is_order`.
    """
    roles = {role.id for role in person.roles} if isinstance(person, discord.Member) else set()
    places = {channel_id}
    if isinstance(channel, discord.Thread):
        places.add(channel.parent_id)
    is_direct = isinstance(channel, discord.DMChannel)
    is_order = access.is_order(str(person.id), command)
    said_of_person = access.rule_for(PLATFORM, map(str, (person.id, *roles)), is_order=is_order)
    said_of_place = access.rule_for(PLATFORM, map(str, places), is_order=is_order)
    is_denied = (
        False in (said_of_person, said_of_place)
        or (access.is_silenced(PLATFORM, str(person.id)) and not is_order)
        or person.id in settings.denied_users
        or not roles.isdisjoint(settings.denied_roles)
        or not places.isdisjoint(settings.denied_channels)
        or (is_direct and not settings.direct_messages)
    )
    is_known = said_of_person or not (settings.allowed_users or settings.allowed_roles)
    is_named = person.id in settings.allowed_users or not roles.isdisjoint(settings.allowed_roles)
    is_any_place = is_direct or said_of_place or not settings.allowed_channels
    is_here = is_any_place or not places.isdisjoint(settings.allowed_channels)
    return not is_denied and (is_known or is_named) and is_here


def _is_reply_to(message: discord.Message, me: discord.ClientUser) -> bool:
    answered = message.reference.resolved if message.reference is not None else None
    return (
        message.type is discord.MessageType.reply
        and isinstance(answered, discord.Message)
        and answered.author.id == me.id
    )


def _permissions(message: discord.Message) -> discord.Permissions | None:
    """What the author may do there; None where that is not known, as in messages read later."""
    channel = message.channel
    if not isinstance(message.author, discord.Member) or isinstance(
        channel, discord.DMChannel | discord.GroupChannel | discord.PartialMessageable
    ):
        return None
    try:
        return channel.permissions_for(message.author)
    except discord.ClientException:  # a thread below a channel that we do not see
        return None
