"""What becomes of a message: nothing, a command, or a turn that waits for its time. Each event once.

A turn is queued in the same transaction in which its event is disposed of: a crash before repeats the event,
one after finds the turn.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from bot.clock import Clock
from bot.once import Once
from bot.receiving.access import Access
from bot.receiving.attachments import with_files
from bot.receiving.consent import Consent
from bot.receiving.conversations import Asker, begin, find_begun, find_for_message
from bot.receiving.haste import Haste
from bot.receiving.limits import Letters
from bot.receiving.listening import Listening
from bot.receiving.notices import PlaceNotices
from bot.sending.outbound import OpensThreads, Outbound
from bot.words import Call, Inbound, Origin, SendError, Where
from storage.amounts import Rates
from storage.conversations import Conversation, Place, note_told, open_place
from storage.database import Database, Transaction
from storage.inbox import Waiting, dispose
from storage.ledger import Person, open_account
from storage.settings import inherit_settings
from storage.transcript import Question, Said, ask, end, extend, get_turn, last_asked, note_delivered

logger = logging.getLogger(__name__)

TOO_OLD_MS = 600_000
JOIN_MS = 1200
AWAY = "I was away when you wrote; please ask again."
TOO_LONG = "That is {} letters long; please write at most {} letters at once."
REFUSALS = {
    "conversation full": "Too many questions wait in this conversation already; please wait for an answer.",
    "person busy": "You have questions waiting already; please wait for their answers.",
    "bot full": "Too many people are asking right now; please try again in a minute.",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A turn that was queued, and what is worth saying about it."""

    said: Said
    conversation: Conversation
    place: Place
    is_joined: bool = False
    """The message was added to a question that was asked a moment before."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What receiving needs to know of people: their quota's rates, and the key of those forgotten."""

    store: Database
    clock: Clock
    rates: Rates
    hash_key: bytes
    access: Access
    haste: Haste
    place_notice: str = ""
    attachment_bytes: int = 65_536
    letters: Letters = field(default_factory=Letters)
    listening: Listening = field(default_factory=Listening)
    consent: Consent = field(kw_only=True)


class Joining(Protocol):
    """Knows whether a question may still grow, and answers it anew if it has."""

    def can_begin_again(self, turn_id: str) -> bool: ...

    def origin_of(self, said: Said) -> Origin: ...

    def begin_again(self, turn_id: str) -> None: ...


class Reception:
    """Takes events in, one platform's after the other's."""

    def __init__(
        self,
        desk: Desk,
        obey: Callable[[Inbound, Call, Asker], Awaitable[None]],
        enqueue: Callable[[Said], Awaitable[str]],
        runner: Joining,
        withdraw: Callable[[Waiting, Inbound, Outbound], Awaitable[None]],
    ) -> None:
        self._desk = desk
        self._obey = obey
        self._enqueue = enqueue
        self._runner = runner
        self._withdraw = withdraw
        self._notices = PlaceNotices(desk.store, desk.clock, desk.place_notice)
        self._told_away = Once(TOO_OLD_MS / 1000)

    async def take(self, waiting: Waiting, port: Outbound) -> None:
        """Deal with one event."""
        try:
            inbound = msgspec.json.decode(waiting.event.payload, type=Inbound)
        except msgspec.DecodeError:
            logger.warning("event %s cannot be read; it is left out", waiting.event.event_id)
            await self._desk.store.write(dispose, waiting.inbox_id)
            return
        now_s = self._desk.clock.now_s()
        self._desk.listening.hear(inbound.where.platform, now_s)
        if inbound.deleted:
            await self._withdraw(waiting, inbound, port)
        elif not self._may_be_heard(inbound):
            await self._desk.store.write(dispose, waiting.inbox_id)
        elif self._was_missed(inbound, now_s):
            await self._decline(waiting, inbound, port, self._away(inbound))
        elif refusal := self._desk.haste.refusal(waiting.inbox_id, inbound, round(now_s * 1000)):
            await self._decline(waiting, inbound, port, refusal)
        elif inbound.mistake:
            await self._decline(waiting, inbound, port, inbound.mistake)
        elif await self._desk.consent.is_missing(inbound):
            await self._ask_consent(waiting, inbound, port)
        elif inbound.call is not None:
            await self._call(waiting, inbound, inbound.call)
        else:
            await self._ask(waiting, inbound, port)

    def _may_be_heard(self, inbound: Inbound) -> bool:
        command = inbound.call.command if inbound.call is not None else ""
        where, person = inbound.where, inbound.author.external_id
        return self._desk.access.may_be_heard(where.platform, person, where.place, command)

    def _was_missed(self, inbound: Inbound, now_s: float) -> bool:
        """It is old, and was said before we have listened without a break."""
        listening_ms = 1000 * self._desk.listening.length_s(inbound.where.platform, now_s)
        return self._desk.clock.now_ms() - inbound.sent_ms > max(TOO_OLD_MS, listening_ms)

    async def _call(self, waiting: Waiting, inbound: Inbound, call: Call) -> None:
        asker = await self._desk.store.write(self._asker, inbound, waiting.inbox_id)
        if asker is not None:
            await self._obey(inbound, call, asker)

    async def _ask(self, waiting: Waiting, inbound: Inbound, port: Outbound) -> None:
        if len(inbound.text) > (most := self._desk.letters.message):
            await self._decline(waiting, inbound, port, TOO_LONG.format(len(inbound.text), most))
            return
        inbound, complaint = await with_files(inbound, port, self._desk.attachment_bytes)
        if not inbound.text:
            await self._decline(waiting, inbound, port, complaint)
            return
        asked_at = inbound.where
        if isinstance(port, OpensThreads):
            inbound = await port.open_thread(inbound)
        await self._notices.tell(asked_at, inbound.event_id, port)
        accepted = await self._desk.store.write(self._accept, inbound, waiting.inbox_id, asked_at)
        if accepted is not None:
            await self._begin(accepted, inbound, port)
            if complaint:
                await _tell(port, inbound, complaint)

    async def _begin(self, accepted: Accepted, inbound: Inbound, port: Outbound) -> None:
        """Let a turn that was queued run when it may."""
        if accepted.is_joined:
            self._runner.begin_again(accepted.said.question.turn_id)
            return
        outcome = await self._enqueue(accepted.said)
        if outcome in REFUSALS:
            await self._desk.store.write(refuse, accepted.said, self._desk.clock.now_ms())
            await _tell(port, inbound, REFUSALS[outcome])

    async def _decline(self, waiting: Waiting, inbound: Inbound, port: Outbound, sentence: str) -> None:
        if await self._desk.store.write(dispose, waiting.inbox_id) and sentence:
            await _tell(port, inbound, sentence)

    def _away(self, inbound: Inbound) -> str:
        """What to say about something old: nothing, if that was said about something else a moment ago."""
        key = inbound.where.platform, inbound.where.place, inbound.author.external_id
        return AWAY if self._told_away.is_first(key, self._desk.clock.now_s()) else ""

    async def _ask_consent(self, waiting: Waiting, inbound: Inbound, port: Outbound) -> None:
        """Ask whether this may be processed. It stays in the inbox, for when its author has agreed."""
        if await self._desk.consent.has_too_many(inbound):
            await self._desk.store.write(dispose, waiting.inbox_id)
        if question := self._desk.consent.question(inbound):
            await _tell(port, inbound, question)

    def _asker(self, connection: Transaction, inbound: Inbound, inbox_id: int) -> Asker | None:
        """Who asks and where, once; None if the event was dealt with before."""
        if not dispose(connection, inbox_id):
            return None
        now_ms = self._desk.clock.now_ms()
        person = Person(inbound.where.platform, inbound.author.external_id)
        account_id = open_account(connection, person, self._desk.rates, self._desk.hash_key, now_ms)
        place = open_place(connection, inbound.where.platform, inbound.where.place, now_ms)
        return Asker(account_id, place, inbound.where, inbound.event_id)

    def _accept(
        self, connection: Transaction, inbound: Inbound, inbox_id: int, asked_at: Where
    ) -> Accepted | None:
        asker = self._asker(connection, inbound, inbox_id)
        if asker is None:
            return None
        now_ms = self._desk.clock.now_ms()
        found = find_for_message(connection, asker, inbound.reply_to, now_ms)
        asked_in = found or find_begun(connection, asker, now_ms - TOO_OLD_MS)
        if asked_in is not None:
            joined = self._joined(connection, asker, asked_in, inbound, now_ms)
            if joined is not None:
                return Accepted(joined, asked_in, asker.place, is_joined=True)
        conversation = found or begin(connection, asker, now_ms)
        turn_id = queue_turn(connection, asker, conversation, inbound, now_ms)
        said = get_turn(connection, turn_id)
        assert said is not None
        if asked_at != asker.where:
            _inherit(connection, asked_at, asker.place.place_id, now_ms)
        return Accepted(said, conversation, asker.place)

    def _joined(
        self,
        connection: Transaction,
        asker: Asker,
        conversation: Conversation,
        inbound: Inbound,
        now_ms: int,
    ) -> Said | None:
        """The question that a message was added to, if its author asked it a moment ago."""
        number = conversation.conversation_id
        last = last_asked(connection, number, asker.account_id, now_ms - TOO_OLD_MS)
        if last is None or not self._runner.can_begin_again(last.question.turn_id):
            return None
        if not 0 <= inbound.sent_ms - self._runner.origin_of(last).sent_ms <= JOIN_MS:
            return None
        prompt = f"{last.question.prompt}\n{inbound.text}"
        if len(prompt) > self._desk.letters.message:
            return None
        return last if extend(connection, last.question.turn_id, prompt, inbound.event_id) else None


def _inherit(connection: Transaction, asked_at: Where, thread_id: int, now_ms: int) -> None:
    """A thread that was made of a message is a part of the place where that was written."""
    channel = open_place(connection, asked_at.platform, asked_at.place, now_ms)
    inherit_settings(connection, channel.place_id, thread_id)
    if channel.told_ms is not None:
        note_told(connection, thread_id, now_ms)


def queue_turn(  # one place makes turns, whoever asks for them
    connection: Transaction, asker: Asker, conversation: Conversation, inbound: Inbound, now_ms: int
) -> str:
    """Queue a turn for what was said; returns its id."""
    origin = Origin(inbound.where, inbound.event_id, inbound.author, sent_ms=inbound.sent_ms)
    turn_id = secrets.token_hex(16)
    question = Question(
        turn_id,
        conversation.conversation_id,
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
