"""Commands about how answers are written: persona and settings."""

from dataclasses import dataclass
from typing import Literal

from bot.commands.desk import CommandDesk, Order
from bot.conversations import begin, find_for_command
from storage.conversations import Conversation, get_conversation, set_persona
from storage.database import Transaction
from storage.settings import Scope, Value, reset_settings, set_setting, settings_of

MAX_PERSONA_LETTERS = 2000
NOBODY = "There is no conversation of yours here yet; ask something first."
Kind = Literal["number", "count", "switch"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that people can set."""

    kind: Kind
    least: float = 0
    most: float = 1
    words: tuple[str, str] = ("on", "off")

    def read(self, text: str) -> Value | None:
        """The value that somebody typed; None if it is none."""
        if self.kind == "switch":
            return text == self.words[0] if text in self.words else None
        try:
            number = float(text.replace(",", "."))
        except ValueError:
            return None
        if not self.least <= number <= self.most or (self.kind == "count" and number != int(number)):
            return None
        return int(number) if self.kind == "count" else number

    def allowed(self) -> str:
        """What it may be, for people."""
        return " or ".join(self.words) if self.kind == "switch" else f"{self.least:g} to {self.most:g}"

    def show(self, value: Value) -> str:
        """A value as it is typed."""
        return self.words[0 if value else 1] if self.kind == "switch" else f"{value:g}"


SETTINGS = {
    "temperature": Setting("number", 0, 2),
    "top_p": Setting("number", 0.01, 1),
    "top_k": Setting("count", 0, 1000),
    "repetition_penalty": Setting("number", 0.5, 2),
    "max_new_tokens": Setting("count", 16, 4096),
    "streaming": Setting("switch"),
    "thinking": Setting("switch", words=("show", "hide")),
}
SCOPES: dict[str, Scope] = {"here": "conversation", "me": "account", "channel": "place"}
ORIGINS = {"conversation": "here", "account": "by you, everywhere", "place": "for this channel"}


async def persona_show(desk: CommandDesk, order: Order) -> str:
    """What this conversation's system prompt is."""
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None or not here.persona:
        return "I behave as usual here."
    return f"Here I was told: {here.persona}"


async def persona_set(desk: CommandDesk, order: Order) -> str:
    """Give this conversation another system prompt: a new one begins, as the old one knows another."""
    text = order.arguments["text"].strip()
    if len(text) > MAX_PERSONA_LETTERS:
        return f"That is {len(text)} letters long; {MAX_PERSONA_LETTERS} are the most."
    return await _change(desk, order, text, "From now on I follow that, in a new conversation.")


async def persona_clear(desk: CommandDesk, order: Order) -> str:
    """Take the system prompt back."""
    return await _change(desk, order, None, "I behave as usual again, in a new conversation.")


async def settings_show(desk: CommandDesk, order: Order) -> str:
    """Each value, and by whom it was set."""
    here = await desk.desk.store.read(find_for_command, order.asker)
    found = await desk.desk.store.read(_found, order, here)
    lines = []
    for name, setting in SETTINGS.items():
        scope, value = found.get(name, ("", None))
        shown = "as the operator has set it" if value is None else f"{setting.show(value)} ({ORIGINS[scope]})"
        lines.append(f"{name}: {shown}")
    return "\n".join(lines)


async def settings_set(desk: CommandDesk, order: Order) -> str:
    """Change one value, for this conversation unless another scope is named."""
    name, text = order.arguments["name"].lower(), order.arguments["value"].lower()
    setting = SETTINGS.get(name)
    if setting is None:
        return f"There is no setting of that name; there are {', '.join(SETTINGS)}."
    value = setting.read(text)
    if value is None:
        return f"{name} is {setting.allowed()}."
    if name == "thinking":
        value = text
    target = await _target(desk, order)
    if isinstance(target, str):
        return target
    await desk.desk.store.write(set_setting, *target, name, value)
    return f"{name} is {text} now, {ORIGINS[target[0]]}."


async def settings_reset(desk: CommandDesk, order: Order) -> str:
    """Take one value back, or all of a scope."""
    target = await _target(desk, order)
    if isinstance(target, str):
        return target
    number = await desk.desk.store.write(reset_settings, *target, order.arguments.get("name"))
    return "That is as the operator has set it again." if number else "Nothing was set there."


async def _change(desk: CommandDesk, order: Order, persona: str | None, sentence: str) -> str:
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None and order.inbound.where.kind == "group":
        return NOBODY
    await desk.desk.store.write(_begin_with, order, here, persona, desk.desk.clock.now_ms())
    return sentence


def _begin_with(
    connection: Transaction, order: Order, here: Conversation | None, persona: str | None, now_ms: int
) -> None:
    """Where many talk a conversation keeps its place and is only told anew; elsewhere another begins."""
    keeps_place = here is not None and order.inbound.where.kind == "group"
    changed = here if keeps_place else begin(connection, order.asker, now_ms)
    assert changed is not None
    set_persona(connection, changed.conversation_id, persona)


def _found(connection: Transaction, order: Order, here: Conversation | None) -> dict[str, tuple[str, Value]]:
    """The value that counts of each setting, and its scope."""
    scopes: list[tuple[Scope, int]] = [
        ("place", order.asker.place.place_id),
        ("account", order.asker.account_id),
    ]
    if here is not None and get_conversation(connection, here.conversation_id) is not None:
        scopes.append(("conversation", here.conversation_id))
    return {
        name: (scope, value == "show" if name == "thinking" else value)
        for scope, number in scopes
        for name, value in settings_of(connection, scope, number).items()
    }


async def _target(desk: CommandDesk, order: Order) -> tuple[Scope, int] | str:
    """Which scope is meant, or why it may not be changed."""
    scope = SCOPES[order.arguments.get("scope", "here")]
    if scope == "account":
        return scope, order.asker.account_id
    if scope == "place":
        is_theirs = order.inbound.where.kind == "direct" or order.inbound.author.is_moderator
        return (scope, order.asker.place.place_id) if is_theirs else "Only moderators may set that for all."
    here = await desk.desk.store.read(find_for_command, order.asker)
    return NOBODY if here is None else (scope, here.conversation_id)
