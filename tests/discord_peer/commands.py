"""What a client does with a registered command: find it, fill it in, refuse what it would not offer."""

from typing import Any

from tests.discord_peer.checks import CHAT_COMMAND, MESSAGE_COMMAND, USER_COMMAND
from tests.discord_peer.payloads import channel_json, member_json, role_json, user_json
from tests.discord_peer.permissions import Permission
from tests.discord_peer.things import Channel, Guild, Json, Role, User
from tests.discord_peer.world import World

SUBCOMMAND, GROUP, STRING, INTEGER, BOOLEAN, USER, CHANNEL, ROLE, MENTIONABLE, NUMBER = range(1, 11)
PLAIN: dict[int, tuple[type, ...]] = {STRING: (str,), INTEGER: (int,), BOOLEAN: (bool,), NUMBER: (int, float)}
IN_GUILD, IN_DIRECT = 0, 1


class NotPossible(Exception):
    """A test lets a person do what Discord's client would not let them do."""


def find_command(world: World, channel: Channel, user: User, name: str, kind: int = CHAT_COMMAND) -> Json:
    """The command that `user` is offered here. Raises NotPossible if there is none."""
    scopes = [channel.guild.id, 0] if channel.guild else [0]
    for scope in scopes:
        for command in world.commands.get(scope, {}).values():
            if (command["type"], command["name"]) == (kind, name):
                check_offered(world, command, channel, user)
                return command
    known = sorted(one["name"] for scope in scopes for one in world.commands.get(scope, {}).values())
    raise NotPossible(f"no command {name!r} of kind {kind} is registered here, only {known}")


def check_offered(world: World, command: Json, channel: Channel, user: User) -> None:
    """Raises NotPossible if the client hides the command from this person or in this place."""
    allowed = channel.permissions_of(user)
    needed = command.get("default_member_permissions")
    if channel.guild is not None and needed is not None:
        lacks = Permission(int(needed)) & ~allowed if int(needed) else ~allowed & Permission.ADMINISTRATOR
        if lacks:
            raise NotPossible(f"{user.name} is not shown {command['name']!r}")
    if not allowed & Permission.USE_APPLICATION_COMMANDS:
        raise NotPossible(f"{user.name} may not use commands in this channel")
    contexts = command.get("contexts")
    here = IN_GUILD if channel.guild else IN_DIRECT
    if contexts is not None and here not in contexts:
        raise NotPossible(f"{command['name']!r} is not offered here")
    if here == IN_DIRECT and contexts is None and command.get("dm_permission") is False:
        raise NotPossible(f"{command['name']!r} is not offered in direct messages")
    if is_only_user_install(world, channel) and 1 not in command.get("integration_types", [0]):
        raise NotPossible(f"the bot is not here, and {command['name']!r} is not for user installs")


def is_only_user_install(world: World, channel: Channel) -> bool:
    return channel.guild is not None and world.bot.id not in channel.guild.members


def chat_data(command: Json, words: list[str], options: dict[str, Any], guild: Guild | None) -> Json:
    """What the client sends for a slash command; `words` lead to a subcommand. Raises NotPossible."""
    resolved: Json = {}
    filled = fill(command.get("options") or [], words, options, guild, resolved)
    shown: Json = {"id": command["id"], "name": command["name"], "type": CHAT_COMMAND, "options": filled}
    if "guild_id" in command:
        shown["guild_id"] = command["guild_id"]
    return shown | ({"resolved": resolved} if resolved else {})


def fill(
    known: list[Json], words: list[str], options: dict[str, Any], guild: Guild | None, resolved: Json
) -> list[Json]:
    """Options with their values, inside subcommands as deep as `words` say."""
    is_branch = any(option["type"] in (SUBCOMMAND, GROUP) for option in known)
    if is_branch != bool(words):
        raise NotPossible("a subcommand must be named where there are some, and only there")
    if words:
        inner = next((option for option in known if option["name"] == words[0]), None)
        if inner is None:
            raise NotPossible(f"no subcommand {words[0]!r}, only {[option['name'] for option in known]}")
        below = fill(inner.get("options") or [], words[1:], options, guild, resolved)
        return [{"name": words[0], "type": inner["type"], "options": below}]
    by_name = {option["name"]: option for option in known}
    if unknown := set(options) - set(by_name):
        raise NotPossible(f"no options {sorted(unknown)}, only {sorted(by_name)}")
    for option in known:
        if option.get("required") and option["name"] not in options:
            raise NotPossible(f"{option['name']!r} must be filled in")
    return [
        {
            "name": name,
            "type": by_name[name]["type"],
            "value": value_of(by_name[name], value, guild, resolved),
        }
        for name, value in options.items()
    ]


def value_of(option: Json, value: Any, guild: Guild | None, resolved: Json) -> Any:
    """A value as it travels. People, channels and roles are also described in `resolved`."""
    kind = option["type"]
    if kind in PLAIN:
        check_plain(option, value)
        return value
    resolve(value, guild, resolved)
    return str(value.id)


def check_plain(option: Json, value: Any) -> None:
    name = option["name"]
    if not isinstance(value, PLAIN[option["type"]]):
        raise NotPossible(f"{name!r} takes {PLAIN[option['type']]}, not {value!r}")
    choices = [choice["value"] for choice in option.get("choices") or []]
    if choices and value not in choices:
        raise NotPossible(f"{name!r} offers {choices}")
    size = len(value) if isinstance(value, str) else value
    kind = "length" if isinstance(value, str) else "value"
    low, high = option.get(f"min_{kind}"), option.get(f"max_{kind}")
    if (low is not None and size < low) or (high is not None and size > high):
        raise NotPossible(f"{name!r} is between {low} and {high}")


def resolve(value: Any, guild: Guild | None, resolved: Json) -> None:
    """Describe what an option points at."""
    if isinstance(value, User):
        resolved.setdefault("users", {})[str(value.id)] = user_json(value)
        if guild is not None and value.id in guild.members:
            shown = member_json(guild.members[value.id]) | {
                "permissions": str(int(guild.permissions_of(value)))
            }
            resolved.setdefault("members", {})[str(value.id)] = {
                k: v for k, v in shown.items() if k != "user"
            }
    elif isinstance(value, Role):
        resolved.setdefault("roles", {})[str(value.id)] = role_json(value)
    elif isinstance(value, Channel):
        shown = channel_json(value) | {"permissions": "0"}
        resolved.setdefault("channels", {})[str(value.id)] = shown
    else:
        raise NotPossible(f"{value!r} is nothing that an option can point at")


def target_data(command: Json, target_id: int, resolved: Json) -> Json:
    """What the client sends for a command in the menu of a message or of a person."""
    assert command["type"] in (MESSAGE_COMMAND, USER_COMMAND)
    return {
        "id": command["id"],
        "name": command["name"],
        "type": command["type"],
        "target_id": str(target_id),
        "resolved": resolved,
    }
