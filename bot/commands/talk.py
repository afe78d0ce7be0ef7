"""Commands about the conversation at hand: new, stop, retry, continue, undo."""

import secrets
from dataclasses import dataclass

import msgspec

from bot.commands.desk import CommandDesk, Order
from bot.context import held_ids
from bot.conversations import begin, find_for_command
from bot.words import Origin
from storage.conversations import Conversation, get_conversation, move_head
from storage.database import Transaction
from storage.transcript import Question, Said, ask, get_turn, path_to

NOTHING = "There is no conversation of yours here yet."
BUSY = "An answer is being written here; stop it first."
NOT_YOURS = "Only who asked for this answer can do that."
NOT_LAST = "There is a newer answer in that conversation; this can be done only with the last one."
NAMED_TURN = "turn"
"""An argument that controls below an answer give, and nobody types: whose answer it is."""
QUOTED_LETTERS = 40
MAX_TEMPERATURE = 2.0
RETRY_TEMPERATURE = 0.7
"""Where answers are the likeliest ones, the same question would get the same answer again."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """The conversation that a command is about, and the turn that its last answer belongs to."""

    conversation: Conversation
    last: Said


async def begin_anew(desk: CommandDesk, order: Order) -> str:
    """Leave this conversation behind and begin another."""
    if order.inbound.where.kind == "group" and not order.inbound.where.root:
        return "Here every question begins a new conversation; reply to an answer to go on with it."
    here = await desk.desk.store.read(find_for_command, order.asker)
    await desk.desk.store.write(begin, order.asker, desk.desk.clock.now_ms())
    if here is not None:
        for turn_id in _open_turns(desk, here):
            desk.runner.stop(turn_id)
        await desk.brain.forget(here.conversation_id)
    return "A new conversation begins."


async def stop(desk: CommandDesk, order: Order) -> str:
    """End the answer that is being written, and what waits behind it."""
    here = await desk.desk.store.read(_conversation_of, order)
    turns = _open_turns(desk, here) if here is not None else []
    said = [await desk.desk.store.read(get_turn, turn_id) for turn_id in turns]
    own = [each for each in said if each is not None and _may_stop(order, each)]
    if not turns:
        return "Nothing is being written here."
    if not own:
        return "Only who asked for this answer, or a moderator, can stop it."
    for each in own:
        desk.runner.stop(each.question.turn_id)
    return ""


async def try_again(desk: CommandDesk, order: Order) -> str:
    """Write the last answer again; the old one is kept in the history."""
    temperature = _temperature(order.arguments.get("temperature"))
    if isinstance(temperature, str):
        return temperature
    if temperature is None and not desk.books.has_chance:
        temperature = RETRY_TEMPERATURE
    here = await _own_last(desk, order)
    if isinstance(here, str):
        return here
    turn_id = await desk.desk.store.write(_queue_again, here, desk.desk.clock.now_ms(), temperature)
    return await _enqueue(desk, turn_id)


async def go_on(desk: CommandDesk, order: Order) -> str:
    """Go on with the last answer where it was cut off."""
    here = await _own_last(desk, order)
    if isinstance(here, str):
        return here
    if here.last.state == "done":
        return "That answer is complete; ask something else."
    path = await desk.desk.store.read(path_to, here.conversation.head_id)
    if not held_ids(path):
        return "That answer cannot be gone on with; try it again instead."
    turn_id = await desk.desk.store.write(_queue_more, here, desk.desk.clock.now_ms())
    return await _enqueue(desk, turn_id)


async def undo(desk: CommandDesk, order: Order) -> str:
    """Take the last question and its answer back."""
    here = await _own_last(desk, order)
    if isinstance(here, str):
        return here
    await desk.desk.store.write(
        move_head, here.conversation.conversation_id, here.last.parent_id, desk.desk.clock.now_ms()
    )
    quoted = " ".join(here.last.question.prompt.split())[:QUOTED_LETTERS]
    return f"Taken back: “{quoted}”"


async def _own_last(desk: CommandDesk, order: Order) -> _Answered | str:
    """The last answer here, if this person may change it now; otherwise why not."""
    here = await desk.desk.store.read(_find, order)
    if here is None:
        return NOTHING
    if order.arguments.get(NAMED_TURN, here.last.question.turn_id) != here.last.question.turn_id:
        return NOT_LAST
    if _open_turns(desk, here.conversation):
        return BUSY
    return here if here.last.question.account_id == order.asker.account_id else NOT_YOURS


def _find(connection: Transaction, order: Order) -> _Answered | None:
    conversation = _conversation_of(connection, order)
    if conversation is None or conversation.head_id is None:
        return None
    last = get_turn(connection, conversation.head_id)
    return None if last is None else _Answered(conversation, last)


def _conversation_of(connection: Transaction, order: Order) -> Conversation | None:
    """The conversation that a command is about: that of the turn which a control names, or the one here."""
    turn_id = order.arguments.get(NAMED_TURN)
    if turn_id is None:
        return find_for_command(connection, order.asker)
    said = get_turn(connection, turn_id)
    found = get_conversation(connection, said.question.conversation_id) if said is not None else None
    is_here = found is not None and found.place_id == order.asker.place.place_id
    return found if is_here else None


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
    try:
        temperature = float(text.replace(",", "."))
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature <= MAX_TEMPERATURE:
        return f"temperature is a number from 0 to {MAX_TEMPERATURE:g}, as in `retry 0.9`."
    return temperature


def _queue_again(connection: Transaction, here: _Answered, now_ms: int, temperature: float | None) -> str:
    move_head(connection, here.conversation.conversation_id, here.last.parent_id, now_ms)
    origin = msgspec.json.decode(here.last.question.origin, type=Origin)
    return _queue(connection, here, here.last.question.prompt, origin, now_ms, temperature)


def _queue_more(connection: Transaction, here: _Answered, now_ms: int) -> str:
    origin = msgspec.json.decode(here.last.question.origin, type=Origin)
    return _queue(connection, here, "", origin, now_ms, origin.temperature)


def _queue(
    connection: Transaction,
    here: _Answered,
    prompt: str,
    origin: Origin,
    now_ms: int,
    temperature: float | None,
) -> str:
    turn_id = secrets.token_hex(16)
    changed = msgspec.structs.replace(origin, temperature=temperature)
    question = Question(
        turn_id,
        here.conversation.conversation_id,
        here.last.question.account_id,
        prompt,
        here.last.question.event_id,
        msgspec.json.encode(changed),
    )
    ask(connection, question, now_ms)
    return turn_id


async def _enqueue(desk: CommandDesk, turn_id: str) -> str:
    said = await desk.desk.store.read(get_turn, turn_id)
    assert said is not None
    await desk.enqueue(said)
    return ""
