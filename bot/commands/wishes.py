"""Commands about how answers are written: persona and settings."""

from dataclasses import dataclass, replace
from typing import Literal

from bot.commands.desk import CommandDesk, Order
from bot.commands.forgetting import close_personas
from bot.commands.named import NOT_THEIRS, is_theirs, which_one
from bot.commands.numbers import decimal_from, read_decimal, whole_from
from bot.commands.talk import end_session
from bot.receiving.conversations import begin, find_for_command
from bot.sending.outbound import OpensThreads
from storage.conversations import Conversation, get_conversation, set_persona
from storage.database import Transaction
from storage.personas import unused_personas
from storage.settings import PERSONA, Scope, Value, reset_settings, set_setting, settings_of

JUST_US = "`channel` is for channels and rooms; in a chat of two use `here` or `me`."
NOT_FOR_ALL = "Only moderators may set that for all."
NOBODY = "There is no conversation of yours here yet; ask something first."
Kind = Literal["number", "count", "switch"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that people can set."""

    kind: Kind
    least: float = 0
    most: float = 1
    words: tuple[str, str] = ("on", "off")
    is_habit: bool = False
    """It is about a whole channel, and moderators alone set it; see bot.receiving.habits."""

    def read(self, text: str) -> Value | None:
        """The value that somebody typed; None if it is none."""
        if self.kind == "switch":
            return text == self.words[0] if text in self.words else None
        number = read_decimal(text)
        if number is None or not self.least <= number <= self.most:
            return None
        if self.kind == "count" and number != int(number):
            return None
        return int(number) if self.kind == "count" else number + 0.0  # no -0

    def allowed(self) -> str:
        """What it may be, for people."""
        if self.kind == "switch":
            return " or ".join(self.words)
        if self.kind == "count":
            return whole_from(int(self.least), int(self.most))
        return decimal_from(self.least, self.most)

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
    "threads": Setting("switch", is_habit=True),
    "always": Setting("switch", is_habit=True),
}
NO_SETTING = f"There is no setting of that name; there are {', '.join(SETTINGS)}."
SCOPES: dict[str, Scope] = {"here": "conversation", "me": "account", "channel": "place"}
ORIGINS = {"conversation": "here", "account": "by you, everywhere", "place": "for this channel"}


async def persona_show(desk: CommandDesk, order: Order) -> str:
    """What this conversation's system prompt is."""
    here = await desk.desk.store.read(find_for_command, order.asker)
    own = here.persona if here is not None else None
    of_place = await desk.desk.store.read(settings_of, "place", order.asker.place.place_id)
    told = own or of_place.get(PERSONA) or ""
    sentence = f"Here I was told: {told}" if told else "I behave as usual here."
    return sentence + await _which_one(desk, order)


async def persona_set(desk: CommandDesk, order: Order) -> str:
    """Give this conversation another system prompt: a new one begins, as the old one knows another."""
    text = order.arguments["text"].strip()
    if refusal := _too_long(desk, text):
        return refusal
    return await _change(desk, order, text, "From now on I follow that, in a new conversation.")


async def persona_channel(desk: CommandDesk, order: Order) -> str:
    """What conversations of a channel begin with that were told nothing else; moderators alone say so."""
    text, place_id = order.arguments.get("text", "").strip(), order.asker.place.place_id
    if order.inbound.where.kind == "direct":
        return f"`persona channel` is for channels and rooms; here say `persona set {text or '...'}`."
    if not order.inbound.author.is_moderator:
        return NOT_FOR_ALL
    if refusal := _too_long(desk, text):
        return refusal
    if text:
        await desk.desk.store.write(set_setting, "place", place_id, PERSONA, text)
        return "From now on I follow that in this channel, where a conversation has no persona of its own."
    await desk.desk.store.write(reset_settings, "place", place_id, PERSONA)
    return "I behave as usual in this channel again."


async def persona_clear(desk: CommandDesk, order: Order) -> str:
    """Take the system prompt back."""
    return await _change(desk, order, None, "I behave as usual again, in a new conversation.")


def _too_long(desk: CommandDesk, text: str) -> str:
    most = desk.desk.letters.persona
    return f"That is {len(text)} letters long; {most} are the most." if len(text) > most else ""


async def settings_show(desk: CommandDesk, order: Order) -> str:
    """Each value, and by whom it was set."""
    here = await desk.desk.store.read(find_for_command, order.asker)
    found = await desk.desk.store.read(_found, order, here)
    lines = []
    for name, setting in SETTINGS.items():
        scope, value = found.get(name, ("", None))
        shown = "as the operator has set it" if value is None else f"{setting.show(value)} ({ORIGINS[scope]})"
        lines.append(f"{name}: {shown}")
    return "\n".join(lines) + await _which_one(desk, order)


async def settings_set(desk: CommandDesk, order: Order) -> str:
    """Change one value, for this conversation unless another scope is named."""
    name, text = order.arguments["name"].lower(), order.arguments["value"].lower()
    setting = _setting(desk, name)
    if setting is None:
        return NO_SETTING
    value = setting.read(text)
    if value is None:
        return f"{name} is {setting.allowed()}."
    shown = setting.show(value)
    if name == "thinking":
        value = text
    if setting.is_habit and (refusal := _no_habit(desk, order, name, text)):
        return refusal
    target = await _target(desk, order)
    if isinstance(target, str):
        return target
    await desk.desk.store.write(set_setting, *target, name, value)
    await _take_in(desk, target[0])
    which = await _which_one(desk, order) if target[0] == "conversation" else ""
    return f"{name} is {shown} now, {ORIGINS[target[0]]}.{which}"


async def settings_reset(desk: CommandDesk, order: Order) -> str:
    """Take one value back, or all of a scope."""
    name = order.arguments.get("name", "").lower()
    if name and name not in SETTINGS:
        return NO_SETTING
    target = await _target(desk, order)
    if isinstance(target, str):
        return target
    number = await desk.desk.store.write(reset_settings, *target, name or None)
    await _take_in(desk, target[0])
    which = await _which_one(desk, order) if target[0] == "conversation" else ""
    return ("That is as the operator has set it again." if number else "Nothing was set there.") + which


async def _which_one(desk: CommandDesk, order: Order) -> str:
    return await desk.desk.store.read(which_one, order)


def _setting(desk: CommandDesk, name: str) -> Setting | None:
    """The setting of that name, within what the operator allows."""
    setting, most = SETTINGS.get(name), desk.books.most_new_tokens
    if setting is not None and name == "max_new_tokens":
        return replace(setting, least=min(setting.least, most), most=most)
    return setting


def _no_habit(desk: CommandDesk, order: Order, name: str, text: str) -> str:
    """Why the bot cannot behave like that here; "" if it can."""
    where = order.inbound.where
    port = desk.ports[where.platform]
    if where.kind == "direct":
        return f"{name} is for channels and rooms; here there are only the two of us."
    if order.arguments.get("scope") != "channel":
        return f"{name} holds for a whole channel: `settings set {name} {text} channel`."
    if name == "threads" and not isinstance(port, OpensThreads):
        return "threads can be set only where I open them, on Discord."
    if name == "always" and text == "on" and not port.limits.hears_all:
        return (
            "I cannot do that: Discord shows me only messages that mention me, until my operator gets me the"
            " message content intent."
        )
    return ""


async def _take_in(desk: CommandDesk, scope: Scope) -> None:
    """What was set for a place is to be known without asking the store."""
    if scope == "place":
        await desk.desk.access.habits.load(desk.desk.store)


async def _change(desk: CommandDesk, order: Order, persona: str | None, sentence: str) -> str:
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None and order.inbound.where.kind == "group":
        return NOBODY
    if here is not None and not is_theirs(order, here):
        return NOT_THEIRS
    unused = await desk.desk.store.write(_begin_with, order, here, persona, desk.desk.clock.now_ms())
    if here is not None:
        await end_session(desk, here)
    await close_personas(desk, unused)
    return sentence + await _which_one(desk, order)


def _begin_with(
    connection: Transaction, order: Order, here: Conversation | None, persona: str | None, now_ms: int
) -> set[str]:
    """Where many talk a conversation keeps its place and is only told anew; elsewhere another begins.

    Returns the instructions that nobody follows any more.
    """
    keeps_place = here is not None and order.inbound.where.kind == "group"
    changed = here if keeps_place else begin(connection, order.asker, now_ms)
    assert changed is not None
    set_persona(connection, changed.conversation_id, persona)
    return unused_personas(connection, {here.persona} if here is not None and here.persona else set())


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
        if order.inbound.where.kind == "direct":
            return JUST_US
        may_set = order.inbound.author.is_moderator
        return (scope, order.asker.place.place_id) if may_set else NOT_FOR_ALL
    here = await desk.desk.store.read(find_for_command, order.asker)
    if here is None:
        return NOBODY
    return (scope, here.conversation_id) if is_theirs(order, here) else NOT_THEIRS
