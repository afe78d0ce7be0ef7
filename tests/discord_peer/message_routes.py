"""Routes on messages: create, edit, delete, read, react, type."""

from urllib.parse import unquote

from tests.discord_peer.calls import Answer, Call, Handler
from tests.discord_peer.checks import MAX_NONCE_LETTERS, is_private, new_version
from tests.discord_peer.payloads import user_json
from tests.discord_peer.permissions import Permission
from tests.discord_peer.refusals import Refusal, invalid_form, too_long
from tests.discord_peer.things import DIRECT, Channel, Message, Version
from tests.discord_peer.world import World

NONCE_WINDOW_S = 120.0  # Discord says "a few minutes"; bots should trust it no longer than this
MAX_REACTIONS = 20
MESSAGE = "/channels/{channel_id}/messages/{message_id}"
REACTIONS = MESSAGE + "/reactions"


async def create_message(call: Call) -> Answer:
    channel = call.channel()
    check_may_send(call, channel)
    nonce = checked_nonce(call.fields.get("nonce"))
    if nonce is not None and call.fields.get("enforce_nonce"):
        same = find_by_nonce(call.world, channel, nonce)
        if same is not None:
            return 200, call.world.shown(same)
    if is_private(call.fields):
        call.world.findings.append(f"{call.route}: only answers to interactions can be private")
    version = new_version(call.world.clock.now_s(), call.fields, call.files)
    check_may_show(channel.permissions_of(call.world.bot), version)
    message = Message(call.world.ids.next(), channel, call.world.bot, [version], nonce=nonce)
    message.reply_to = replied(call, channel)
    return 200, call.world.shown(call.world.post(message))


def check_may_send(call: Call, channel: Channel) -> None:
    """Raises Refusal if the bot may not write here."""
    if channel.kind == DIRECT:
        if channel.recipient is None or not channel.recipient.takes_direct_messages:
            raise Refusal(50007)
        return
    sends = Permission.SEND_MESSAGES_IN_THREADS if channel.is_thread else Permission.SEND_MESSAGES
    call.channel(sends)
    if channel.is_locked and not channel.permissions_of(call.world.bot) & Permission.MANAGE_THREADS:
        raise Refusal(160005)


def check_may_show(allowed: Permission, version: Version) -> None:
    """Raises Refusal if files or embeds are more than is allowed."""
    lacks_files = version.attachments and not allowed & Permission.ATTACH_FILES
    lacks_embeds = version.embeds and not allowed & Permission.EMBED_LINKS
    if lacks_files or lacks_embeds:
        raise Refusal(50013)


def checked_nonce(nonce: object) -> str | None:
    if nonce is None:
        return None
    if len(str(nonce)) > MAX_NONCE_LETTERS:
        raise too_long("nonce", MAX_NONCE_LETTERS)
    return str(nonce)


def find_by_nonce(world: World, channel: Channel, nonce: str) -> Message | None:
    """A message of the bot that was sent with `nonce` a short while ago."""
    mine = (message for message in channel.messages if message.author is world.bot)
    return next((m for m in mine if m.nonce == nonce and world.age_s(m) < NONCE_WINDOW_S), None)


def replied(call: Call, channel: Channel) -> Message | None:
    """The message that a new one answers. Raises Refusal if it must be there and is not."""
    reference = call.fields.get("message_reference")
    if not reference or "message_id" not in reference:
        return None
    target = channel.all_messages.get(int(reference["message_id"]))
    if target is None or target.is_deleted:
        if reference.get("fail_if_not_exists", True):
            raise invalid_form("message_reference", "REPLIES_UNKNOWN_MESSAGE", "Unknown message")
        return None
    if not channel.permissions_of(call.world.bot) & Permission.READ_MESSAGE_HISTORY:
        raise Refusal(160002)
    return target


async def edit_message(call: Call) -> Answer:
    channel = call.channel()
    message = call.message(channel)
    if message.author is not call.world.bot:
        raise Refusal(50005)
    if channel.is_archived:
        raise Refusal(50083)
    version = new_version(call.world.clock.now_s(), call.fields, call.files, message.now)
    check_may_show(channel.permissions_of(call.world.bot), version)
    call.world.edit(message, version)
    return 200, call.world.shown(message)


async def delete_message(call: Call) -> Answer:
    channel = call.channel()
    message = call.message(channel)
    if message.author is not call.world.bot:
        if channel.kind == DIRECT:
            raise Refusal(50003)
        call.channel(Permission.MANAGE_MESSAGES)
    call.world.delete(message)
    return 204, None


async def get_message(call: Call) -> Answer:
    channel = call.channel(Permission.READ_MESSAGE_HISTORY)
    return 200, call.world.shown(call.message(channel))


async def list_messages(call: Call) -> Answer:
    """The newest first; `after` alone picks the ones that follow it directly, as Discord does."""
    channel = call.channel()
    limit = int(call.query.get("limit", 50))
    if not 1 <= limit <= 100:
        raise invalid_form("limit", "NUMBER_TYPE_MAX", "int value should be between 1 and 100.")
    if not channel.permissions_of(call.world.bot) & Permission.READ_MESSAGE_HISTORY:
        return 200, []
    return 200, [call.world.shown(message) for message in reversed(page(channel, call, limit))]


def page(channel: Channel, call: Call, limit: int) -> list[Message]:
    """Up to `limit` messages, the oldest first."""
    messages = channel.messages
    if "around" in call.query:
        center = int(call.query["around"])
        nearest = sorted(messages, key=lambda message: abs(message.id - center))[:limit]
        return sorted(nearest, key=lambda message: message.id)
    if "after" in call.query:
        return [m for m in messages if m.id > int(call.query["after"])][:limit]
    before = int(call.query.get("before", 1 << 63))
    return [m for m in messages if m.id < before][-limit:]


async def type_in_channel(call: Call) -> Answer:
    channel = call.channel()
    check_may_send(call, channel)
    call.world.type_in(channel, call.world.bot)
    return 204, None


async def add_reaction(call: Call) -> Answer:
    channel = call.channel(Permission.READ_MESSAGE_HISTORY)
    message = call.message(channel)
    emoji = known_emoji(call)
    if emoji not in message.reactions:
        call.channel(Permission.ADD_REACTIONS)
        if len(message.reactions) >= MAX_REACTIONS:
            raise Refusal(30010)
    call.world.react(message, call.world.bot, emoji)
    return 204, None


def known_emoji(call: Call) -> str:
    """A Unicode emoji. Raises Refusal for words, and for emoji of guilds, of which there are none here."""
    emoji = unquote(call.params["emoji_name"])
    if emoji.isascii() or len(emoji) > 12:
        raise Refusal(10014)
    return emoji


async def remove_own_reaction(call: Call) -> Answer:
    message = call.message(call.channel(Permission.READ_MESSAGE_HISTORY))
    call.world.unreact(message, call.world.bot, known_emoji(call))
    return 204, None


async def remove_reaction(call: Call) -> Answer:
    message = call.message(call.channel(Permission.MANAGE_MESSAGES))
    call.world.unreact(message, call.user(), known_emoji(call))
    return 204, None


async def list_reactions(call: Call) -> Answer:
    message = call.message(call.channel(Permission.READ_MESSAGE_HISTORY))
    return 200, [user_json(user) for user in message.reactions.get(known_emoji(call), [])]


ROUTES: dict[str, Handler] = {
    "GET /channels/{channel_id}/messages": list_messages,
    "POST /channels/{channel_id}/messages": create_message,
    f"GET {MESSAGE}": get_message,
    f"PATCH {MESSAGE}": edit_message,
    f"DELETE {MESSAGE}": delete_message,
    f"GET {REACTIONS}/{{emoji_name}}": list_reactions,
    f"PUT {REACTIONS}/{{emoji_name}}/@me": add_reaction,
    f"DELETE {REACTIONS}/{{emoji_name}}/@me": remove_own_reaction,
    f"DELETE {REACTIONS}/{{emoji_name}}/{{user_id}}": remove_reaction,
    "POST /channels/{channel_id}/typing": type_in_channel,
}
