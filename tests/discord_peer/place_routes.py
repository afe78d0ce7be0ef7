"""Routes on the bot itself, on guilds, members, channels, threads, and on which commands there are."""

from typing import Any

from tests.discord_peer.calls import Answer, Call, Handler
from tests.discord_peer.checks import CHAT_COMMAND, check_commands
from tests.discord_peer.intents import application_flags
from tests.discord_peer.payloads import (
    channel_json,
    guild_json,
    member_json,
    own_account_json,
    role_json,
    thread_member_json,
    user_json,
)
from tests.discord_peer.permissions import Permission
from tests.discord_peer.refusals import Refusal, invalid_form
from tests.discord_peer.things import DIRECT, PRIVATE_THREAD, PUBLIC_THREAD, TEXT, Json

COMMANDS = "/applications/{application_id}/commands"
GUILD_COMMANDS = "/applications/{application_id}/guilds/{guild_id}/commands"


async def get_own_account(call: Call) -> Answer:
    return 200, own_account_json(call.world.bot)


async def get_own_application(call: Call) -> Answer:
    bot = call.world.bot
    flags = application_flags(call.world.approved)
    nothing = (
        "icon interactions_endpoint_url role_connections_verification_url team type approximate_guild_count"
    )
    return 200, {
        **dict.fromkeys(nothing.split(), None),
        "id": str(bot.id),
        "name": bot.name,
        "description": "",
        "verify_key": "0" * 64,
        "flags": flags,
        "flags_new": str(flags),
        "redirect_uris": [],
        "owner": user_json(bot),
        "bot": user_json(bot),
        "approximate_guild_count": len(call.world.guilds),
        "approximate_user_install_count": 0,
        "approximate_user_authorization_count": 0,
        "explicit_content_filter": 0,
        "eligible_oauth2_scopes": [],
        "bot_public": True,
        "bot_require_code_grant": False,
    }


async def get_gateway(call: Call) -> Answer:
    sessions = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
    return 200, {"url": call.world.gateway_url, "shards": 1, "session_start_limit": sessions}


async def get_user(call: Call) -> Answer:
    return 200, user_json(call.user())


async def list_own_guilds(call: Call) -> Answer:
    bot = call.world.bot
    return 200, [
        {
            "id": str(guild.id),
            "name": guild.name,
            "icon": None,
            "banner": None,
            "owner": guild.owner is bot,
            "permissions": str(int(guild.permissions_of(bot))),
            "features": [],
        }
        for guild in call.world.guilds.values()
        if bot.id in guild.members
    ]


async def open_direct_channel(call: Call) -> Answer:
    user = call.world.users.get(int(call.fields.get("recipient_id") or 0))
    if user is None:
        raise invalid_form("recipient_id", "UNKNOWN_USER", "Unknown user")
    return 200, channel_json(call.world.direct_channel(user))


async def get_guild(call: Call) -> Answer:
    return 200, guild_json(call.guild()) | {"approximate_member_count": len(call.guild().members)}


async def list_channels(call: Call) -> Answer:
    channels = call.guild().channels.values()
    return 200, [channel_json(channel) for channel in channels if not channel.is_thread]


async def list_roles(call: Call) -> Answer:
    return 200, [role_json(role) for role in call.guild().roles.values()]


async def get_member(call: Call) -> Answer:
    member = call.guild().members.get(call.user().id)
    if member is None:
        raise Refusal(10007)
    return 200, member_json(member)


async def list_active_threads(call: Call) -> Answer:
    active = [c for c in call.guild().channels.values() if c.is_thread and not c.is_archived]
    threads = [c for c in active if c.permissions_of(call.world.bot) & Permission.VIEW_CHANNEL]
    joined = [thread for thread in threads if call.world.bot in thread.thread_members]
    return 200, {
        "threads": [channel_json(thread) for thread in threads],
        "members": [thread_member_json(thread, call.world.bot) for thread in joined],
        "has_more": False,
    }


async def get_channel(call: Call) -> Answer:
    return 200, channel_json(call.channel())


async def edit_channel(call: Call) -> Answer:
    channel = call.channel()
    if channel.kind == DIRECT:
        raise Refusal(50003)
    if not (channel.is_thread and channel.owner is call.world.bot):
        call.channel(Permission.MANAGE_THREADS if channel.is_thread else Permission.MANAGE_CHANNELS)
    channel.name = checked_name(call.fields.get("name", channel.name))
    channel.is_archived = bool(call.fields.get("archived", channel.is_archived))
    call.world.update_channel(channel)
    return 200, channel_json(channel)


async def delete_channel(call: Call) -> Answer:
    channel = call.channel()
    if channel.kind != DIRECT:
        call.channel(Permission.MANAGE_THREADS if channel.is_thread else Permission.MANAGE_CHANNELS)
        call.world.delete_channel(channel)
    return 200, channel_json(channel)


def checked_name(name: Any) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= 100:
        raise invalid_form("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    return name


async def start_thread_at_message(call: Call) -> Answer:
    channel = call.channel(Permission.CREATE_PUBLIC_THREADS)
    if channel.kind != TEXT:
        raise Refusal(50024)
    message = call.message(channel)
    if message.thread is not None:
        raise Refusal(160004)
    name = checked_name(call.fields.get("name"))
    return 201, channel_json(call.world.start_thread(channel, call.world.bot, name, message))


async def start_thread(call: Call) -> Answer:
    kind = int(call.fields.get("type") or PRIVATE_THREAD)
    is_public = kind == PUBLIC_THREAD
    channel = call.channel(
        Permission.CREATE_PUBLIC_THREADS if is_public else Permission.CREATE_PRIVATE_THREADS
    )
    if channel.kind != TEXT:
        raise Refusal(50024)
    name = checked_name(call.fields.get("name"))
    return 201, channel_json(call.world.start_thread(channel, call.world.bot, name, kind=kind))


async def join_thread(call: Call) -> Answer:
    thread = call.channel()
    if not thread.is_thread:
        raise Refusal(50024)
    if call.world.bot not in thread.thread_members:
        thread.thread_members.append(call.world.bot)
    return 204, None


def scope_of(call: Call) -> int:
    """Which list of commands a request means. Raises Refusal if it is not this bot's."""
    if call.number("application_id") != call.world.bot.id:
        raise Refusal(20012)
    return call.guild().id if "guild_id" in call.params else 0


async def list_commands(call: Call) -> Answer:
    return 200, list(call.world.commands.get(scope_of(call), {}).values())


async def set_commands(call: Call) -> Answer:
    """All at once; one that keeps its kind and name keeps its id."""
    scope = scope_of(call)
    if not isinstance(call.body, list):
        raise invalid_form("_errors", "LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
    check_commands(call.body)
    before = {key_of(command): command for command in call.world.commands.get(scope, {}).values()}
    made = [stored_command(call, command, scope, before.get(key_of(command))) for command in call.body]
    call.world.commands[scope] = {int(command["id"]): command for command in made}
    return 200, made


async def add_command(call: Call) -> Answer:
    scope = scope_of(call)
    there = call.world.commands.setdefault(scope, {})
    same = next((one for one in there.values() if key_of(one) == key_of(call.fields)), None)
    check_commands([one for one in there.values() if one is not same] + [call.fields])
    made = stored_command(call, call.fields, scope, same)
    there[int(made["id"])] = made
    return 200 if same else 201, made


async def delete_command(call: Call) -> Answer:
    if call.world.commands.get(scope_of(call), {}).pop(call.number("command_id"), None) is None:
        raise Refusal(10063)
    return 204, None


def key_of(command: Json) -> tuple[int, str]:
    return command.get("type") or CHAT_COMMAND, command["name"]


def stored_command(call: Call, command: Json, scope: int, before: Json | None) -> Json:
    """A command with what Discord adds to it."""
    kind, name = key_of(command)
    stored: Json = {
        "description": "",
        "default_member_permissions": None,
        "contexts": None,
        "integration_types": [0],
        "nsfw": False,
        **{key: value for key, value in command.items() if value is not None},
        "id": before["id"] if before else str(call.world.ids.next()),
        "application_id": str(call.world.bot.id),
        "version": str(call.world.ids.next()),
        "type": kind,
        "name": name,
    }
    if stored["default_member_permissions"] is not None:
        stored["default_member_permissions"] = str(stored["default_member_permissions"])
    return stored | {"guild_id": str(scope)} if scope else stored


ROUTES: dict[str, Handler] = {
    "GET /users/@me": get_own_account,
    "GET /oauth2/applications/@me": get_own_application,
    "GET /applications/@me": get_own_application,
    "GET /gateway/bot": get_gateway,
    "GET /users/@me/guilds": list_own_guilds,
    "POST /users/@me/channels": open_direct_channel,
    "GET /users/{user_id}": get_user,
    "GET /guilds/{guild_id}": get_guild,
    "GET /guilds/{guild_id}/channels": list_channels,
    "GET /guilds/{guild_id}/roles": list_roles,
    "GET /guilds/{guild_id}/members/{user_id}": get_member,
    "GET /guilds/{guild_id}/threads/active": list_active_threads,
    "GET /channels/{channel_id}": get_channel,
    "PATCH /channels/{channel_id}": edit_channel,
    "DELETE /channels/{channel_id}": delete_channel,
    "POST /channels/{channel_id}/threads": start_thread,
    "POST /channels/{channel_id}/messages/{message_id}/threads": start_thread_at_message,
    "PUT /channels/{channel_id}/thread-members/@me": join_thread,
    f"GET {COMMANDS}": list_commands,
    f"PUT {COMMANDS}": set_commands,
    f"POST {COMMANDS}": add_command,
    f"DELETE {COMMANDS}/{{command_id}}": delete_command,
    f"GET {GUILD_COMMANDS}": list_commands,
    f"PUT {GUILD_COMMANDS}": set_commands,
    f"POST {GUILD_COMMANDS}": add_command,
    f"DELETE {GUILD_COMMANDS}/{{command_id}}": delete_command,
}
