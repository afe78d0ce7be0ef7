"""Commands about the conversation at hand: new, stop, retry, continue, undo."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from bot.commands.desk import CommandDesk, Order
from bot.commands.named import NOT_LAST, NOT_THEIRS, beginning_of, conversation_of, is_theirs, names_another
from bot.commands.numbers import decimal_from, read_decimal
from bot.receiving.conversations import begin
from bot.receiving.reception import REFUSALS, refuse
from bot.turns.context import held_ids
from bot.words import Origin
from storage.conversations import Conversation, move_head
from storage.database import Transaction
from storage.transcript import (
    Place,
    Question,
    Said,
    ask,
    get_turn,
    has_open_turns,
    newest_turn,
    path_to,
)

NOTHING = "There is no conversation of yours here yet."
BUSY = "An answer is being written here; stop it first."
NOT_YOURS = "Only who asked for this answer can do that."
MAX_TEMPERATURE = 2.0
RETRY_TEMPERATURE = 0.7
"""Where answers are the likeliest ones, the same question would get the same answer again."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """The conversation that a command is about, and the last thing that was asked and ended there."""

    conversation: Conversation
    last: Said

    @property
    def is_head(self) -> bool:
        """What comes next follows it: it has said something."""
        return self.conversation.head_id == self.last.question.turn_id

    @property
    def before_id(self) -> str | None:
        """The turn that another try of it follows."""
        return self.last.parent_id if self.is_head else self.conversation.head_id


async def begin_anew(desk: CommandDesk, order: Order) -> str:
    """Leave this conversation behind and begin another."""
    if order.inbound.where.kind == "group" and not order.inbound.where.root:
        return "Here every question begins a new conversation; reply to an answer to go on with it."
    here = await desk.desk.store.read(conversation_of, order)
    if here is not None and not is_theirs(order, here):
        return NOT_THEIRS
    await desk.desk.store.write(begin, order.asker, desk.desk.clock.now_ms())
    if here is not None:
        await end_session(desk, here)
    return "A new conversation begins."


async def end_session(desk: CommandDesk, conversation: Conversation) -> None:
    """End what is written in a conversation, and close its session, with all that it was told."""
    for turn_id in _open_turns(desk, conversation):
        desk.stop(turn_id)
    await desk.brain.forget(conversation.conversation_id)


async def stop(desk: CommandDesk, order: Order) -> str:
    """End the answer that is being written, and what waits behind it."""
    here = await desk.desk.store.read(conversation_of, order)
    turns = _open_turns(desk, here) if here is not None else []
    said = [await desk.desk.store.read(get_turn, turn_id) for turn_id in turns]
    own = [each for each in said if each is not None and _may_stop(order, each)]
    if not turns:
        return "Nothing is being written here."
    if not own:
        return "Only who asked for this answer, or a moderator, can stop it."
    for each in own:
        desk.stop(each.question.turn_id)
    return ""


async def try_again(desk: CommandDesk, order: Order) -> str:
    """Write the last answer again; the old one is kept in the history."""
    temperature = _temperature(order.arguments.get("temperature"))
    if isinstance(temperature, str):
        return temperature
    if temperature is None and not desk.books.has_chance:
        temperature = RETRY_TEMPERATURE
    return await _queue(desk, order, lambda here: _another_try(here, temperature))


async def go_on(desk: CommandDesk, order: Order) -> str:
    """Go on with the last answer where it was cut off."""
    here = await desk.desk.store.read(_find, order)
    if here is not None and here.last.state == "done":
        return "That answer is complete; ask something else."
    if here is not None and here.is_head:
        path = await desk.desk.store.read(path_to, here.conversation.head_id)
        if not held_ids(path):
            return "That answer cannot be gone on with; try it again instead."
    return await _queue(desk, order, _more)


async def undo(desk: CommandDesk, order: Order) -> str:
    """Take the last question and its answer back."""
    return await desk.desk.store.write(_undone, order, desk.desk.clock.now_ms())


# --- in one transaction, so that nothing comes between looking and doing ------------------------------


def _find(connection: Transaction, order: Order) -> _Answered | None:
    """The last that was asked here and came to something, or came to nothing just now."""
    conversation = conversation_of(connection, order)
    if conversation is None:
        return None
    newest = newest_turn(connection, conversation.conversation_id)
    if newest is not None and not newest.progress.answer_ids and newest.parent_id == conversation.head_id:
        return _Answered(conversation, newest)
    head = None if conversation.head_id is None else get_turn(connection, conversation.head_id)
    if head is not None:
        return _Answered(conversation, head)
    return None if newest is None else _Answered(conversation, newest)


def _own(connection: Transaction, order: Order) -> _Answered | str:
    """What this person may change now; otherwise why not."""
    here = _find(connection, order)
    if here is None:
        return NOTHING
    if names_another(order, here.last.question.turn_id):
        return NOT_LAST
    if has_open_turns(connection, here.conversation.conversation_id):
        return BUSY
    return here if here.last.question.account_id == order.asker.account_id else NOT_YOURS


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A turn that a command asks for."""

    prompt: str
    origin: Origin
    retry: Place | None


Want = Callable[[_Answered], _Wanted | str]


def _another_try(here: _Answered, temperature: float | None) -> _Wanted:
    origin = msgspec.json.decode(here.last.question.origin, type=Origin)
    warmer = msgspec.structs.replace(origin, temperature=temperature)
    return _Wanted(here.last.question.prompt, warmer, Place(here.before_id))


def _more(here: _Answered) -> _Wanted | str:
    if not here.is_head:
        return "There is no answer to go on with; try it again instead."
    return _Wanted("", msgspec.json.decode(here.last.question.origin, type=Origin), None)


def _queued(connection: Transaction, order: Order, want: Want, now_ms: int) -> Said | str:
    """Queue what `want` makes of the last answer, or tell why not."""
    here = _own(connection, order)
    wanted = here if isinstance(here, str) else want(here)
    if isinstance(here, str) or isinstance(wanted, str):
        return f"{wanted}"
    question = Question(
        secrets.token_hex(16),
        here.conversation.conversation_id,
        here.last.question.account_id,
        wanted.prompt,
        here.last.question.event_id,
        msgspec.json.encode(wanted.origin),
    )
    ask(connection, question, now_ms, wanted.retry)
    said = get_turn(connection, question.turn_id)
    assert said is not None
    return said


def _undone(connection: Transaction, order: Order, now_ms: int) -> str:
    here = _own(connection, order)
    if isinstance(here, str):
        return here
    if not here.is_head:
        return "That question has no answer that could be taken back."
    move_head(connection, here.conversation.conversation_id, here.last.parent_id, now_ms)
    return f"Taken back: {beginning_of(here.last.question.prompt)}"


# --- around it ------------------------------------------------------------------------------------------


async def _queue(desk: CommandDesk, order: Order, want: Want) -> str:
    said = await desk.desk.store.write(_queued, order, want, desk.desk.clock.now_ms())
    if isinstance(said, str):
        return said
    outcome = await desk.enqueue(said)
    if outcome in REFUSALS:
        await desk.desk.store.write(refuse, said, desk.desk.clock.now_ms())
    return REFUSALS.get(outcome, "")


def _may_stop(order: Order, said: Said) -> bool:
    return order.inbound.author.is_moderator or said.question.account_id == order.asker.account_id


def _open_turns(desk: CommandDesk, conversation: Conversation) -> list[str]:
    number = conversation.conversation_id
    running = desk.queue.running_in(number)
    return [*([running] if running else []), *desk.queue.waiting_in(number)]


def _temperature(text: str | None) -> float | str | None:
    """What somebody asked for; a sentence if that is no temperature."""
    if text is None:
        return None
    temperature = read_decimal(text)
    if temperature is None or not 0 <= temperature <= MAX_TEMPERATURE:
        return f"temperature is {decimal_from(0, MAX_TEMPERATURE)}, as in `retry 0.9`."
    return temperature
