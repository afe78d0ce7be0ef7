"""What becomes of a message: nothing, a command, or a turn that waits for its time. Each event once.

A turn is queued in the same transaction in which its event is disposed of: a crash before repeats the event,
one after finds the turn.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from bot.clock import Clock
from bot.conversations import Asker, Found, find_for_message
from bot.display import key_of
from bot.outbound import Outbound
from bot.pacing import Priority
from bot.words import Call, Inbound, Origin, Post, SendError
from storage.amounts import Rates
from storage.conversations import Place, note_told, open_place
from storage.database import Database, Transaction
from storage.inbox import Waiting, dispose
from storage.ledger import Person, open_account
from storage.rate import TokenBuckets
from storage.transcript import Question, Said, ask, end, extend, get_turn, last_asked, note_delivered

logger = logging.getLogger(__name__)

TOO_OLD_MS = 600_000
JOIN_MS = 1200
AWAY = "I was away when you wrote; please ask again."
REFUSALS = {
    "conversation full": "Too many questions wait in this conversation already; please wait for an answer.",
    "person busy": "You have questions waiting already; please wait for their answers.",
    "bot full": "Too many people are asking right now; please try again in a minute.",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that was queued, and what is worth saying about it."""

    said: Said
    found: Found
    place: Place
    is_joined: bool = False
    """The message was added to a question that was asked a moment before."""
    must_tell: bool = False
    """Nobody was told yet, at this place, who can read what is written there."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What receiving needs to know of people: their quota's rates, and the key of those forgotten."""

    store: Database
    clock: Clock
    rates: Rates
    hash_key: bytes
    buckets: TokenBuckets
    place_notice: str = ""


class Joining(Protocol):
    """Knows whether a question may still grow, and answers it anew if it has."""

    def can_begin_again(self, turn_id: str) -> bool: ...

    def begin_again(self, turn_id: str) -> None: ...


class Reception:
    """Takes events in, one platform's after the other's."""

    def __init__(
        self,
        desk: Desk,
        obey: Callable[[Inbound, Call, Asker], Awaitable[None]],
        enqueue: Callable[[Said], Awaitable[str]],
        runner: Joining,
    ) -> None:
        self._desk = desk
        self._obey = obey
        self._enqueue = enqueue
        self._runner = runner

    async def take(self, waiting: Waiting, port: Outbound) -> None:
        """Deal with one event."""
        try:
            inbound = msgspec.json.decode(waiting.event.payload, type=Inbound)
        except msgspec.DecodeError:
            logger.warning("event %s cannot be read; it is left out", waiting.event.event_id)
            await self._desk.store.write(dispose, waiting.inbox_id)
            return
        now_ms = self._desk.clock.now_ms()
        if now_ms - inbound.sent_ms > TOO_OLD_MS:
            await self._decline(waiting, inbound, port, AWAY)
        elif inbound.call is not None:
            await self._call(waiting, inbound, inbound.call)
        elif wait_ms := self._desk.buckets.take((inbound.where.platform, inbound.author.external_id), now_ms):
            await self._decline(
                waiting, inbound, port, f"That was fast; please wait {1 + wait_ms // 1000} seconds."
            )
        else:
            await self._ask(waiting, inbound, port)

    async def _call(self, waiting: Waiting, inbound: Inbound, call: Call) -> None:
        asker = await self._desk.store.write(self._asker, inbound, waiting.inbox_id)
        if asker is not None:
            await self._obey(inbound, call, asker)

    async def _ask(self, waiting: Waiting, inbound: Inbound, port: Outbound) -> None:
        accepted = await self._desk.store.write(self._accept, inbound, waiting.inbox_id)
        if accepted is None:
            return
        if accepted.must_tell:
            await self._tell_place(inbound, port)
        if accepted.is_joined:
            self._runner.begin_again(accepted.said.question.turn_id)
            return
        outcome = await self._enqueue(accepted.said)
        if outcome in REFUSALS:
            await self._desk.store.write(refuse, accepted.said, self._desk.clock.now_ms())
            await _tell(port, inbound, REFUSALS[outcome])

    async def _tell_place(self, inbound: Inbound, port: Outbound) -> None:
        """Say who can read what is written here. It is a notice, not a gate: if it fails, we go on."""
        key = key_of(f"notice {inbound.where.platform} {inbound.where.place}", 0)
        notice = Post(self._desk.place_notice, key)
        try:
            await port.pacer(inbound.where).send(
                Priority.NOTICE, None, partial(port.post, inbound.where, inbound.event_id, notice)
            )
        except SendError as error:
            logger.warning("a place could not be told who can read what is written there: %s", error)

    async def _decline(self, waiting: Waiting, inbound: Inbound, port: Outbound, sentence: str) -> None:
        if await self._desk.store.write(dispose, waiting.inbox_id):
            await _tell(port, inbound, sentence)

    def _asker(self, connection: Transaction, inbound: Inbound, inbox_id: int) -> Asker | None:
        """Who asks and where, once; None if the event was dealt with before."""
        if not dispose(connection, inbox_id):
            return None
        now_ms = self._desk.clock.now_ms()
        person = Person(inbound.where.platform, inbound.author.external_id)
        account_id = open_account(connection, person, self._desk.rates, self._desk.hash_key, now_ms)
        place = open_place(connection, inbound.where.platform, inbound.where.place, now_ms)
        return Asker(account_id, place, inbound.where, inbound.event_id)

    def _accept(self, connection: Transaction, inbound: Inbound, inbox_id: int) -> Accepted | None:
        asker = self._asker(connection, inbound, inbox_id)
        if asker is None:
            return None
        now_ms = self._desk.clock.now_ms()
        found = find_for_message(connection, asker, inbound.reply_to, now_ms)
        joined = self._joined(connection, asker, found, inbound, now_ms)
        if joined is not None:
            return Accepted(joined, found, asker.place, is_joined=True)
        turn_id = queue_turn(connection, asker, found, inbound, now_ms)
        said = get_turn(connection, turn_id)
        assert said is not None
        must_tell = bool(self._desk.place_notice) and note_told(connection, asker.place.place_id, now_ms)
        return Accepted(said, found, asker.place, must_tell=must_tell)

    def _joined(
        self, connection: Transaction, asker: Asker, found: Found, inbound: Inbound, now_ms: int
    ) -> Said | None:
        """The question that a message was added to, if its author asked it a moment ago."""
        number = found.conversation.conversation_id
        last = last_asked(connection, number, asker.account_id, now_ms - JOIN_MS)
        if last is None or not self._runner.can_begin_again(last.question.turn_id):
            return None
        prompt = f"{last.question.prompt}\n{inbound.text}"
        return last if extend(connection, last.question.turn_id, prompt) else None


def queue_turn(  # one place makes turns, whoever asks for them
    connection: Transaction, asker: Asker, found: Found, inbound: Inbound, now_ms: int
) -> str:
    """Queue a turn for what was said; returns its id."""
    origin = Origin(inbound.where, inbound.event_id, inbound.author)
    turn_id = secrets.token_hex(16)
    question = Question(
        turn_id,
        found.conversation.conversation_id,
        asker.account_id,
        inbound.text,
        inbound.event_id,
        msgspec.json.encode(origin),
    )
    ask(connection, question, now_ms)
    return turn_id


def refuse(connection: Transaction, said: Said, now_ms: int) -> None:
    """A turn was queued for which there is no room: end it, its person being told."""
    end(connection, said.question.turn_id, "failed", now_ms)
    note_delivered(connection, said.question.turn_id, now_ms)


async def _tell(port: Outbound, inbound: Inbound, sentence: str) -> None:
    try:
        await port.tell(inbound, sentence)
    except SendError as error:
        logger.warning("a person could not be told: %s", error)
