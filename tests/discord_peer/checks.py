"""What Discord checks in what a bot sends, before it looks at any state: most is refused with 50035."""

import re

from tests.discord_peer.refusals import Refusal, invalid_form, too_long
from tests.discord_peer.things import EPHEMERAL, SUPPRESS_EMBEDS, Attachment, Json, Version, walked

MAX_CONTENT_UNITS = 2_000
MAX_EMBED_LETTERS = 6_000
MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_FILES = 10
MAX_NONCE_LETTERS = 25
EMBED_LIMITS = {"title": 256, "description": 4_096}
SETTABLE_FLAGS = SUPPRESS_EMBEDS | 1 << 12 | 1 << 15
CHAT_COMMAND, USER_COMMAND, MESSAGE_COMMAND = 1, 2, 3
COMMAND_NAME = re.compile(r"[-_'\w]{1,32}")
MAX_COMMANDS = {CHAT_COMMAND: 100, USER_COMMAND: 15, MESSAGE_COMMAND: 15}


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def new_version(at_s: float, body: Json, files: list[Attachment], before: Version | None = None) -> Version:
    """What a message shows after `body`; what it does not name stays as it was `before`.

    Raises Refusal if Discord would not show it.
    """
    old = before or Version(at_s)
    content = old.content if "content" not in body else body["content"] or ""
    if not isinstance(content, str):
        raise invalid_form("content", "STRING_TYPE_CONVERT", "Could not interpret value as string.")
    if utf16_units(content) > MAX_CONTENT_UNITS:
        raise too_long("content", MAX_CONTENT_UNITS)
    content = content.strip()
    embeds = old.embeds if "embeds" not in body else checked_embeds(body["embeds"] or [])
    components = old.components if "components" not in body else checked_components(body["components"] or [])
    attachments = kept_attachments(body, old.attachments) + tuple(described(files, body))
    if len(attachments) > MAX_FILES:
        raise invalid_form("attachments", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    if any(len(file.content) > MAX_FILE_BYTES for file in files):
        raise Refusal(40005)
    if not (content or embeds or components or attachments):
        raise Refusal(50006)
    flags = int(body.get("flags") or 0) & SETTABLE_FLAGS
    allowed = checked_mentions(body.get("allowed_mentions"))
    return Version(at_s, content, embeds, components, attachments, allowed, flags)


def is_private(body: Json) -> bool:
    return bool(int(body.get("flags") or 0) & EPHEMERAL)


def kept_attachments(body: Json, before: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """Those of the version before that an edit keeps: the named ones, or all if it names none."""
    if "attachments" not in body:
        return before
    named = {str(one.get("id")) for one in body["attachments"] or []}
    return tuple(attachment for attachment in before if str(attachment.id) in named)


def described(files: list[Attachment], body: Json) -> list[Attachment]:
    """Uploaded files with the descriptions that the body gives them by index."""
    listed = {str(one.get("id")): one for one in body.get("attachments") or []}
    for index, file in enumerate(files):
        file.description = listed.get(str(index), {}).get("description")
    return files


def checked_embeds(embeds: list[Json]) -> tuple[Json, ...]:
    if len(embeds) > 10:
        raise invalid_form("embeds", "BASE_TYPE_MAX_LENGTH", "Must be 10 or fewer in length.")
    for index, embed in enumerate(embeds):
        for field, limit in EMBED_LIMITS.items():
            if len(embed.get(field) or "") > limit:
                raise too_long(f"embeds.{index}.{field}", limit)
    letters = sum(len(str(embed.get(field) or "")) for embed in embeds for field in EMBED_LIMITS)
    letters += sum(
        len(part.get("name", "")) + len(part.get("value", "")) for e in embeds for part in e.get("fields", [])
    )
    if letters > MAX_EMBED_LETTERS:
        raise invalid_form("embeds", "MAX_EMBED_SIZE_EXCEEDED", "Embed size exceeds maximum size of 6000")
    return tuple(embed | {"type": "rich"} for embed in embeds)


def checked_components(components: list[Json]) -> tuple[Json, ...]:
    """Rows with the numbers that Discord gives to parts without one."""
    rows = [component for component in components if component.get("type") == 1]
    if len(rows) > 5:
        raise invalid_form("components", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    for index, row in enumerate(rows):
        if not 1 <= len(row.get("components", [])) <= 5:
            raise invalid_form(f"components.{index}.components", "BASE_TYPE_BAD_LENGTH", "Must be 1 to 5.")
    parts = walked(components)
    for part in parts:
        check_pressable(part)
    ids = [part["custom_id"] for part in parts if part.get("custom_id")]
    if len(ids) != len(set(ids)):
        raise invalid_form(
            "components", "COMPONENT_CUSTOM_ID_DUPLICATED", "Component custom id cannot be duplicated"
        )
    return tuple(numbered(components))


def check_pressable(part: Json) -> None:
    if len(part.get("custom_id") or "") > 100:
        raise too_long("components.custom_id", 100)
    if part.get("type") != 2:
        return
    if len(part.get("label") or "") > 80:
        raise too_long("components.label", 80)
    if not (part.get("label") or part.get("emoji")):
        raise invalid_form("components", "BUTTON_COMPONENT_LABEL_OR_EMOJI_REQUIRED", "Needs label or emoji.")
    if part.get("style") not in (5, 6) and not part.get("custom_id"):
        raise invalid_form("components.custom_id", "BASE_TYPE_REQUIRED", "This field is required")


def numbered(components: list[Json]) -> list[Json]:
    """A copy whose parts all have an `id`, counted in reading order."""
    count = 0

    def copied(part: Json) -> Json:
        nonlocal count
        count += 1
        copy: Json = {"id": count} | part
        if "components" in part:
            copy["components"] = [copied(inner) for inner in part["components"]]
        return copy

    return [copied(component) for component in components]


def checked_mentions(allowed: Json | None) -> Json | None:
    """As given. Discord refuses a kind that is both parsed and listed."""
    for kind in ("users", "roles"):
        if allowed and kind in allowed.get("parse", []) and allowed.get(kind):
            raise invalid_form(
                "allowed_mentions",
                "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE",
                f'parse:["{kind}"] and {kind}: [ids...] are mutually exclusive.',
            )
    return allowed


def check_commands(commands: list[Json]) -> None:
    """Raises Refusal if Discord would not take this list of commands for one scope."""
    kinds = [command.get("type", CHAT_COMMAND) for command in commands]
    for kind, limit in MAX_COMMANDS.items():
        if kinds.count(kind) > limit:
            raise Refusal(30032)
    names = {(kind, command.get("name")) for kind, command in zip(kinds, commands, strict=True)}
    if len(names) < len(commands):
        raise invalid_form("name", "APPLICATION_COMMANDS_DUPLICATE_NAME", "Names must be unique")
    for command, kind in zip(commands, kinds, strict=True):
        check_command(command, kind)


def check_command(command: Json, kind: int) -> None:
    name = str(command.get("name") or "")
    if kind == CHAT_COMMAND and not (COMMAND_NAME.fullmatch(name) and name == name.lower()):
        raise invalid_form("name", "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    if not 1 <= len(name) <= 32:
        raise invalid_form("name", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 32 in length.")
    if kind == CHAT_COMMAND and not 1 <= len(command.get("description") or "") <= 100:
        raise invalid_form("description", "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 100 in length.")
    check_options(command.get("options") or [])


def check_options(options: list[Json]) -> None:
    """Options of a command, and of the subcommands in it."""
    if len(options) > 25:
        raise invalid_form("options", "BASE_TYPE_MAX_LENGTH", "Must be 25 or fewer in length.")
    needed = [bool(option.get("required")) for option in options]
    if needed != sorted(needed, reverse=True):
        raise invalid_form(
            "options", "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", "Required options must be first"
        )
    for option in options:
        check_command(option | {"type": option.get("type")}, CHAT_COMMAND)
